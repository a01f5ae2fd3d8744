// What runs inside ComfyUI's page. Each function is sent there alone, so none uses anything outside itself but window.

// Loads the sheet's prompt, puts nodes, group boxes and the note in their places; the workflow file and its API prompt.
export async function drawSheet(sheet) {
  const GAP_X = 90, GAP_Y = 66, PAD = 20, FOOT = 40, TITLE = 30, BOX_TITLE = 44, TOP = 100;
  const { app, LiteGraph } = window;
  await app.loadApiJson(sheet.prompt, sheet.name);
  await new Promise((done) => setTimeout(done, 1500));
  const graph = app.graph;
  let x = 40;
  for (const [index, column] of sheet.columns.entries()) {
    let y = TOP;
    for (const { id, height } of column.nodes) {
      const node = graph.getNodeById(Number(id));
      node.pos = [x, y];
      node.setSize([column.width, Math.ceil(Math.max(node.computeSize()[1], height) / 10) * 10]);
      y += node.size[1] + TITLE + GAP_Y;
    }
    const bottom = y - TITLE - GAP_Y;
    const box = new (LiteGraph.LGraphGroup ?? window.LGraphGroup)(column.title);
    graph.add(box);
    box.pos = [x - PAD, TOP - TITLE - BOX_TITLE];
    box.size = [column.width + 2 * PAD, bottom - TOP + TITLE + BOX_TITLE + FOOT];
    box.color = '#88a8c0';
    box.font_size = 22;
    if (index === 0) {
      const note = LiteGraph.createNode('MarkdownNote');
      graph.add(note);
      note.title = 'Read me';
      note.pos = [x, bottom + FOOT + TITLE + 30];
      note.setSize([column.width, sheet.note_height]);
      note.widgets[0].value = sheet.note;
      note.color = '#432';
      note.bgcolor = '#653';
    }
    x += column.width + GAP_X;
  }
  await new Promise((done) => setTimeout(done, 500));
  const api = (await app.graphToPrompt()).output;
  return { workflow: JSON.parse(JSON.stringify(graph.serialize())), api };
}

// Resolves when the run that is started next has ended.
export function watchRun(timeoutMs) {
  const { api } = window.app;
  const outputs = {}, names = ['execution_success', 'execution_error', 'execution_interrupted'];
  return new Promise((done) => {
    const finish = (status, detail) => {
      clearTimeout(timer);
      api.removeEventListener('executed', collect);
      names.forEach((name) => api.removeEventListener(name, end));
      done({ status, detail, outputs });
    };
    const collect = (event) => {
      const { node, display_node: shownOn, output } = event.detail;
      outputs[node] = { on: shownOn, output };
    };
    const end = (event) => finish(event.type, event.detail);
    const timer = setTimeout(() => finish('timeout', document.body.innerText.slice(0, 2000)), timeoutMs);
    api.addEventListener('executed', collect);
    names.forEach((name) => api.addEventListener(name, end));
  });
}

// Whether each of the nodes shows a picture or has a player with something to play.
export function allShow(ids) {
  return ids.every((id) => {
    const node = window.app.graph.getNodeById(Number(id));
    const elements = (node?.widgets ?? []).map((widget) => widget.element).filter(Boolean);
    const players = elements.flatMap((e) => (e.matches('audio, video') ? [e] : [...e.querySelectorAll('audio, video')]));
    return !node || node.imgs?.length || players.some((player) => player.src || player.currentSrc);
  });
}

// What every node shows: pictures, and sound and video players with what they hold and whether they play.
export async function readState() {
  const played = async (player) => {
    if (player.readyState < 1) await new Promise((done) => { player.onloadedmetadata = done; setTimeout(done, 5000); });
    const before = player.currentTime;
    const fault = await player.play().then(() => null, (e) => e.message);
    for (let i = 0; i < 50 && player.currentTime - before < 0.2; i += 1) await new Promise((done) => setTimeout(done, 100));
    player.pause();
    const advanced = player.currentTime - before;
    player.currentTime = 0;
    return { src: player.currentSrc || player.src, duration_s: player.duration, advanced_s: advanced, fault };
  };
  const shown = {};
  for (const node of window.app.graph._nodes) {
    const players = [];
    for (const widget of node.widgets ?? []) {
      const element = widget.element;
      const media = element?.matches?.('audio, video') ? [element] : [...(element?.querySelectorAll?.('audio, video') ?? [])];
      for (const player of media) if (player.src || player.currentSrc) players.push({ kind: player.tagName.toLowerCase(), ...await played(player) });
    }
    shown[node.id] = {
      type: node.type,
      pictures: (node.imgs ?? []).map((image) => [image.naturalWidth ?? 0, image.naturalHeight ?? 0]),
      players,
      widgets: (node.widgets ?? []).map((widget) => [widget.name, widget.type, widget.value]),
    };
  }
  return shown;
}

// [x, y, w, h] around the graph, or around the nodes of the given ids.
export function graphBox(ids) {
  const graph = window.app.graph, TITLE = 30;
  const boxes = graph._nodes.filter((n) => !ids || ids.includes(String(n.id)))
    .map((n) => [n.pos[0], n.pos[1] - TITLE, n.pos[0] + n.size[0], n.pos[1] + n.size[1]]);
  if (!ids) boxes.push(...graph._groups.map((g) => [g.pos[0], g.pos[1], g.pos[0] + g.size[0], g.pos[1] + g.size[1]]));
  const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
  return [left, top, Math.max(...boxes.map((b) => b[2])) - left, Math.max(...boxes.map((b) => b[3])) - top];
}

// A graph of one new node; [x, y, w, h] around it.
export async function nodeBox([type, width]) {
  const { app, LiteGraph } = window;
  app.graph.clear();
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  node.pos = [0, 0];
  await new Promise((done) => setTimeout(done, 600));
  const size = node.computeSize();
  node.setSize([Math.max(size[0], width, 8 * node.title.length + 50), size[1]]); // titles are cut where they do not fit
  return [0, -30, node.size[0], node.size[1] + 30];
}
