// Calls of the edge: the key of this tab, JSON in and out, and failures as Errors with the problem document's words.

let key = "";

export class Problem extends Error {
  constructor(found, status) {
    super(found.detail || found.title || `HTTP ${status}`);
    this.status = status;
    this.reason = found.reason ?? "";
    this.requestId = found.request_id ?? "";
  }
}

export const useKey = given => { key = given.trim(); };
export const ownKey = () => key;

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Problem({ detail: "The service does not answer. Is it still running?" }, 0);
  }
  if (answer.ok) return answer;
  throw new Problem(await answer.json().catch(() => ({})), answer.status);
}

export const getJson = async path => (await send(path)).json();
export const getText = async path => (await send(path)).text();
export const postJson = async (path, body, signal) => (await send(path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
})).json();
export const postFile = async (path, file) => (await send(path, {
  method: "POST", headers: { "Content-Type": "text/csv" }, body: file,
})).json();

// A live session. `onMessage` gets each message; resolves to the socket once the session is open.
export function watch(open, onMessage, onEnd) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/watch`);
  socket.onopen = () => socket.send(JSON.stringify(key ? { open, api_key: key } : { open }));
  socket.onmessage = event => onMessage(JSON.parse(event.data), socket);
  socket.onclose = () => onEnd();
  return socket;
}
