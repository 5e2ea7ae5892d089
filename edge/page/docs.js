// Shows openapi.json as a page: operations, parameters, bodies, examples as curl.

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

function curl(path, method, body) {
  const url = `${location.origin}${path.replace("{name}", "stock")}`;
  if (!body) return `curl ${method === "get" ? "" : "-X " + method.toUpperCase() + " "}-H "Authorization: Bearer $KEY" ${url}`;
  const json = body.content["application/json"];
  if (!json) return `curl -H "Authorization: Bearer $KEY" -H "Content-Type: text/csv" --data-binary @bars.csv ${url}`;
  return `curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\\n  -d '${JSON.stringify(json.example ?? {})}' \\\n  ${url}`;
}

function limits(schema) {
  const words = { minItems: "at least", maxItems: "at most", maxLength: "characters at most", minimum: "from", maximum: "to",
    exclusiveMinimum: "above", exclusiveMaximum: "below" };
  const found = Object.entries(words).filter(([key]) => key in schema).map(([key, word]) => `${word} ${schema[key]}`);
  if (schema.enum) found.push("one of " + schema.enum.join(", "));
  return found.join(", ");
}

// Of several forms the one with fields of its own.
const full = schema => schema.anyOf?.find(one => one.properties || one.items?.properties || one.items?.anyOf) ?? schema.anyOf?.[0] ?? schema;

function kind(schema) {
  if (schema.anyOf) return schema.anyOf.map(kind).join(", or ");
  return schema.type === "array" ? `list of ${schema.items ? kind(schema.items) : "values"}` : String(schema.type ?? "any");
}

function fields(schema, path = "") {
  const rows = [];
  for (const [name, given] of Object.entries(schema.properties ?? {})) {
    const here = path ? `${path}.${name}` : name;
    const one = full(given), inside = full(one.items ?? {});
    rows.push([here, kind(given), [limits(one), limits(inside)].filter(Boolean).join("; each: "), one.description ?? ""]);
    rows.push(...fields(one.type === "array" ? inside : one, one.type === "array" ? `${here}[]` : here));
  }
  return rows;
}

function operation(path, method, one) {
  const body = one.requestBody;
  const details = element("details", {}, element("summary", {},
    element("b", { class: "method" }, method.toUpperCase()), element("code", {}, path), element("span", {}, one.summary ?? "")));
  details.append(element("pre", {}, curl(path, method, body)));
  const rows = [...(one.parameters ?? []).filter(p => p.in === "query").map(p => [`?${p.name}`, "query", "", p.description ?? ""]),
    ...fields(body?.content["application/json"]?.schema ?? {})];
  if (body) details.append(element("p", {}, "Body: " + Object.keys(body.content).join(", ")));
  if (rows.length) {
    const table = element("table", {}, element("tr", {}, ...["field", "type", "limits", "meaning"].map(h => element("th", {}, h))));
    for (const row of rows) table.append(element("tr", {}, element("td", {}, element("code", {}, row[0])), ...row.slice(1).map(c => element("td", {}, c))));
    details.append(element("div", { class: "wide" }, table));
  }
  return details;
}

const spec = await (await fetch("/openapi.json")).json();
document.getElementById("about").textContent = `${spec.info.description} Version ${spec.info.version}.`;
const place = document.getElementById("operations");
place.replaceChildren();
for (const [path, methods] of Object.entries(spec.paths)) {
  for (const [method, one] of Object.entries(methods)) place.append(operation(path, method, one));
}
