// Opens the plane's page in a real Chromium, as a person would: signs in, picks a job, looks at a dataset's report.
// Arguments: URL KEY JOB SCREENSHOT. Prints one JSON object with what the page shows.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_FOLDER + "/");
const chromium = (await import(require.resolve("@sparticuz/chromium"))).default;
const { chromium: playwright } = require("playwright-core");
const [url, key, job, screenshot] = process.argv.slice(2);

// Steps of playwright such as evaluate() and close() have no limit. The exit of node ends the browser.
setTimeout(() => { console.error("the browser hung"); process.exit(3); }, 180_000).unref();
chromium.setGraphicsMode = false;  // no WebGL here; drawing by an emulated GPU took most of the CPU time
const browser = await playwright.launch({ args: chromium.args, executablePath: await chromium.executablePath(), headless: true });
let page;
try {
  page = await browser.newPage({ viewport: { width: 1360, height: 900 } });
  page.setDefaultTimeout(90_000);  // on a busy machine a screenshot takes more than the default, 30 s
  const faults = [];
  page.on("pageerror", error => faults.push(error.message));
  page.on("console", message => { if (message.type() === "error") faults.push(message.text()); });
  await page.goto(url);
  await page.fill("#key", "mi_000000000000_wrong");
  await page.click("#login button");
  await page.waitForFunction(() => document.getElementById("fault").textContent.includes("not valid"));
  const expected = faults.splice(0).filter(text => !text.includes("401"));
  await page.fill("#key", key);
  await page.click("#login button");
  await page.click(`tr[data-job="${job}"]`);
  await page.waitForSelector("#curve polyline", { state: "attached" });
  await page.waitForSelector("#artifacts tr");
  await page.click("#datasets tr");
  await page.waitForSelector("#report td");
  await page.screenshot({ path: screenshot });
  const shown = await page.evaluate(() => ({
    about: document.getElementById("about").textContent,
    jobs: document.querySelectorAll("#jobs tr").length,
    events: [...document.querySelectorAll("#events tr")].map(row => row.children[1].textContent),
    measures: document.getElementById("measures").textContent,
    artifacts: document.getElementById("artifacts").textContent,
    report: document.getElementById("report").textContent,
    budgets: [...document.querySelectorAll("#budgets tr")].map(row => [...row.children].map(cell => cell.textContent).join(" ")),
    curve: document.querySelector("#curve polyline").getAttribute("points").split(" ").length,
    kept: Object.keys(localStorage).length,
  }));
  console.log(JSON.stringify({ ...shown, faults: [...expected, ...faults] }));
} catch (error) {
  if (page) console.error(await page.evaluate(() => document.body.innerText));
  throw error;
} finally {
  await browser.close();
}
