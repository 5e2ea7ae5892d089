// Drives the page in a real Chromium, as a person would. Arguments: URL FOLDER (with files to drop, for screenshots).
// Prints one JSON object with what the page shows after each step.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_FOLDER + "/");
const chromium = (await import(require.resolve("@sparticuz/chromium"))).default;
const { chromium: playwright } = require("playwright-core");
const [url, folder, ...files] = process.argv.slice(2);

// Steps of playwright such as evaluate() and close() have no limit. The exit of node ends the browser.
setTimeout(() => { console.error("the browser hung"); process.exit(3); }, 180_000).unref();
chromium.setGraphicsMode = false;  // no WebGL here; drawing by an emulated GPU took most of the CPU time
const browser = await playwright.launch({ args: chromium.args, executablePath: await chromium.executablePath(), headless: true });
const found = { files: {}, faults: [], requests: [] };
let page;

const shown = () => page.evaluate(() => ({
  title: document.getElementById("title").textContent,
  subtitle: document.getElementById("subtitle").textContent,
  bands: document.querySelectorAll("#chart .band").length,
  candles: document.querySelectorAll("#chart .up, #chart .down").length,
  came: document.querySelectorAll("#chart .came").length,
  facts: [...document.querySelectorAll("#facts .fact")].map(one => one.textContent),
  notes: [...document.querySelectorAll("#notes li")].map(one => one.textContent),
  panes: [...document.querySelectorAll("#panes .pane-name")].map(one => one.textContent.split(" ")[0]),
  fault: document.getElementById("fault").hidden ? "" : document.getElementById("fault").textContent,
  background: getComputedStyle(document.documentElement).backgroundColor,
  wide: document.documentElement.scrollWidth > innerWidth,
}));
const loaded = title => page.waitForFunction(
  own => document.getElementById("title").textContent === own && document.querySelectorAll("#chart .band").length === 3
    && document.querySelectorAll("#facts .fact").length && document.querySelectorAll("#panes svg").length, title);

try {
  page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, colorScheme: "light" });
  page.setDefaultTimeout(90_000);  // on a busy machine a screenshot took more than the default, 30 s
  page.on("pageerror", error => found.faults.push(error.message));
  page.on("console", message => { if (message.type() === "error") found.faults.push(message.text()); });
  page.on("request", request => found.requests.push(request.url()));
  await page.goto(url);
  await loaded("stock");
  await page.waitForSelector("#moods li");
  await page.waitForSelector("#panes svg");
  found.sample = await shown();
  found.health = await page.textContent("#health");
  found.moods = await page.evaluate(() => [...document.querySelectorAll("#moods li")].map(one => Number(one.lastChild.textContent)));
  await page.screenshot({ path: `${folder}/page.png`, fullPage: true });
  const headlines = await page.inputValue("#texts");
  await page.fill("#texts", "12345 67890 = 5");
  await page.click("#headlines button");
  found.doubt = await page.textContent("#moods small.warning");
  await page.fill("#texts", headlines);
  await page.click("#headlines button");
  await page.waitForFunction(() => document.querySelectorAll("#moods li").length > 1);

  await page.focus("#chart");
  await page.keyboard.press("ArrowRight");
  found.readout = await page.textContent("#readout");
  await page.click("#health");
  found.status = await page.textContent("#status");
  await page.click("#health");

  for (const file of files) {
    const name = file.split("/").at(-1);
    await page.setInputFiles("#file", file);
    if (name.startsWith("bad")) {
      await page.waitForFunction(() => !document.getElementById("fault").hidden);
      found.expected = found.faults.splice(0);
    } else {
      await loaded(name.replace(/\.csv$/, ""));
    }
    found.files[name] = await shown();
  }

  // The last file: the replay clears the notes, and the forecasts of its updates bring the warning back.
  await page.selectOption("#speed", "40");
  const split = "#notes .warning:has-text('split')";
  found.split = await page.textContent(split);
  await page.evaluate(() => document.getElementById("notes").replaceChildren());
  await page.click("#replay");
  found.replayed = await page.textContent(split);
  await page.click("#replay");

  // The end of the replay has asked for a forecast of the last file, too.
  await page.route("**/v1/predict", async route => {
    const now = await shown();
    if (now.title === "season") found.between ??= now;
    await route.continue();
  });
  await page.click("[data-sample='season']");
  await loaded("season");
  found.season = await shown();
  await page.selectOption("#speed", "40");
  await page.click("#replay");
  await page.waitForFunction(() => document.getElementById("live").textContent.includes("40 of 40"));
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: `${folder}/replay.png`, fullPage: true });
  found.live = await page.textContent("#live");
  found.liveFault = await page.textContent("#live-fault");
  found.curl = await page.textContent("#code");
  await page.click("#tab-python");
  found.python = await page.textContent("#code");

  await page.click("#theme");
  found.dark = (await shown()).background;
  await page.click("[data-sample='stock']");
  await loaded("stock");
  await page.screenshot({ path: `${folder}/page-dark.png`, fullPage: true });

  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForFunction(() => document.querySelector("#chart svg").clientWidth < 390);
  found.phone = await shown();
  await page.screenshot({ path: `${folder}/page-phone.png` });

  await page.goto(url + "docs");
  await page.waitForSelector("#operations details");
  found.fields = await page.evaluate(() => [...document.querySelectorAll("#operations td code")].map(one => one.textContent));
  found.operations = await page.evaluate(() => [...document.querySelectorAll("#operations summary code")].map(one => one.textContent));
  found.kept = await page.evaluate(() => Object.keys(localStorage).length + Object.keys(sessionStorage).length);
  console.log(JSON.stringify(found));
} catch (error) {
  if (page) console.error(await page.evaluate(() => document.body.innerText), JSON.stringify(found.faults));
  throw error;
} finally {
  await browser.close();
}
