// Drives ComfyUI's own page in Chromium: node browser.mjs JOB.json
//
// JOB.json: {url, chromium, width, height, steps: [{do: NAME, ...}]}; PLAYWRIGHT_DIR names a folder whose node_modules hold
// playwright-core. Prints one JSON array, a result per step; a step that fails gives {error} and the rest goes on.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createRequire } from 'node:module';
import { allShow, drawSheet, graphBox, nodeBox, readState, watchRun } from './page.mjs';

const { chromium } = createRequire(path.join(process.env.PLAYWRIGHT_DIR ?? '.', 'x.js'))('playwright-core');
const job = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const MARGIN = 24; // of a picture around what it shows
const MENUS = { left: 110, top: 150, right: 60, bottom: 110 }; // room for the page's own bars

async function open() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'comfy-page-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: job.chromium, headless: true, viewport: { width: job.width ?? 1600, height: job.height ?? 1000 },
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required', '--mute-audio',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
  });
  const page = context.pages()[0] ?? await context.newPage();
  await page.goto(job.url, { waitUntil: 'domcontentloaded' });
  await page.waitForFunction(() => window.app?.extensionManager && window.app.graph
    && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100, null, { timeout: 120000 });
  await page.waitForTimeout(2000);
  return { page, close: async () => { await context.close(); fs.rmSync(profile, { recursive: true, force: true }); } };
}

// The view so that `box` ([x, y, w, h] on the canvas) stands clear of the page's bars, and the part of the page it then fills.
async function show(page, box, zoom) {
  const width = Math.ceil(box[2] * zoom) + 2 * MARGIN, height = Math.ceil(box[3] * zoom) + 2 * MARGIN;
  await page.setViewportSize({
    width: Math.max(1200, width + MENUS.left + MENUS.right), height: Math.max(800, height + MENUS.top + MENUS.bottom),
  });
  await page.waitForTimeout(400);
  await page.evaluate(([x, y, scale, left, top]) => {
    const { ds, canvas } = window.app.canvas, at = canvas.getBoundingClientRect();
    ds.scale = scale;
    ds.offset[0] = (left - at.left) / scale - x;
    ds.offset[1] = (top - at.top) / scale - y;
    window.app.canvas.deselectAll?.();
    window.app.canvas.setDirty(true, true);
  }, [box[0], box[1], zoom, MENUS.left + MARGIN, MENUS.top + MARGIN]);
  await page.mouse.move(MENUS.left + width / 2, MENUS.top + 4);
  await page.evaluate(async () => { // players follow their node only when the canvas is drawn, their buttons later still
    const drawn = async () => {
      window.app.canvas.setDirty(true, true);
      await new Promise((done) => setTimeout(done, 700));
    };
    const videos = [...document.querySelectorAll('video')].filter((video) => video.controls);
    await drawn();
    videos.forEach((video) => { video.controls = false; });
    await drawn();
    videos.forEach((video) => { video.controls = true; });
    await drawn();
  });
  return { x: MENUS.left, y: MENUS.top, width, height };
}

const steps = {
  // A sheet of scripts/workflow_sheets.py becomes a workflow file and an API prompt.
  make: (page, { sheet }) => page.evaluate(drawSheet, sheet),

  // A workflow file: node types that are missing, and the API prompt the page makes of it.
  load: async (page, { workflow, name }) => {
    await page.evaluate(([w, n]) => window.app.loadGraphData(w, true, true, n), [workflow, name]);
    await page.waitForTimeout(1000);
    // Nodes out of sight show nothing.
    await page.evaluate(() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView'));
    await page.waitForTimeout(1000);
    return page.evaluate(async () => ({
      missing: window.app.graph._nodes.map((n) => n.type).filter((t) => !(t in window.LiteGraph.registered_node_types)),
      prompt: (await window.app.graphToPrompt()).output,
      nodes: window.app.graph._nodes.length,
    }));
  },

  // Presses the page's Run button; how it ended, what each node put out, and what the nodes then show.
  run: async (page, { timeout_s = 180 }) => {
    const ended = page.evaluate(watchRun, timeout_s * 1000);
    const button = page.getByTestId('queue-button');
    const inner = button.locator('button').first();
    await ((await inner.count()) ? inner : button).click();
    const result = await ended;
    const showing = Object.values(result.outputs).filter(({ output }) => output?.audio || output?.images).map(({ on }) => on);
    await page.waitForFunction(allShow, showing, { timeout: 20000 }).catch(() => {}); // what is missing is in `shown`
    await page.waitForTimeout(1000);
    return { ...result, shown: await page.evaluate(readState) };
  },

  // A picture of the whole graph, or of the nodes whose ids are given; `aspect` widens it to width / height.
  picture: async (page, { out, zoom = 1, ids = null, aspect = 0 }) => {
    let [x, y, w, h] = await page.evaluate(graphBox, ids);
    if (aspect) [x, y, w, h] = [x - Math.max(0, h * aspect - w) / 2, y, Math.max(w, h * aspect), Math.max(h, w / aspect)];
    const clip = await show(page, [x, y, w, h], zoom);
    await page.screenshot({ path: out, clip });
    return { width: clip.width, height: clip.height };
  },

  // A picture of one node type alone.
  node: async (page, { type, out, width = 340 }) => {
    const clip = await show(page, await page.evaluate(nodeBox, [type, width]), 1);
    await page.screenshot({ path: out, clip });
    return { width: clip.width, height: clip.height };
  },

  // The template browser: which titles and pictures it shows for the pack.
  templates: async (page, { pack, out = null }) => {
    await page.setViewportSize({ width: 1600, height: 1800 }); // thumbnails out of sight are not loaded
    await page.evaluate(() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates'));
    await page.waitForTimeout(2500);
    await page.getByText(pack, { exact: false }).first().click({ timeout: 10000 });
    await page.waitForTimeout(3000);
    if (out) await page.screenshot({ path: out });
    return steps.words(page);
  },

  // All that can be read on the page, and every picture with what it says of itself and its size.
  words: (page) => page.evaluate(() => ({
    text: document.body.innerText,
    pictures: [...document.querySelectorAll('img')].map((i) => [`${i.alt} ${i.src}`, i.naturalWidth, i.naturalHeight]),
  })),

  // A picture of the page as it stands, for a look at what went wrong.
  screen: async (page, { out }) => { await page.screenshot({ path: out }); return {}; },

  setting: (page, { key, value }) => page.evaluate(([k, v]) => window.app.extensionManager.setting.set(k, v), [key, value]),
};

const { page, close } = await open();
const problems = [];
page.on('pageerror', (e) => problems.push(e.message));
const results = [];
for (const step of job.steps) {
  try {
    results.push((await steps[step.do](page, step)) ?? {});
  } catch (e) {
    results.push({ error: String(e.message ?? e).slice(0, 2000), problems: [...problems] });
  }
}
await close();
process.stdout.write(JSON.stringify(results));
