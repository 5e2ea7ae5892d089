// Takes a picture of the element `#picture` of a page in a real Chromium. Arguments: URL FILE.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_FOLDER + "/");
const chromium = (await import(require.resolve("@sparticuz/chromium"))).default;
const { chromium: playwright } = require("playwright-core");
const [url, file] = process.argv.slice(2);

// Steps of playwright such as evaluate() and close() have no limit. The exit of node ends the browser.
setTimeout(() => { console.error("the browser hung"); process.exit(3); }, 100_000).unref();
chromium.setGraphicsMode = false;  // no WebGL here; drawing by an emulated GPU took most of the CPU time
const browser = await playwright.launch({ args: chromium.args, executablePath: await chromium.executablePath(), headless: true });
try {
  const page = await browser.newPage();
  await page.goto(url);
  await page.evaluate(() => document.fonts.ready);
  await page.locator("#picture").screenshot({ path: file });
} finally {
  await browser.close();
}
