// The page: shows the dream, sends what is pressed, and asks for the next frame when it is time.

import { Inputs, nameOf } from "/inputs.js";
import { Bars, Strip } from "/strips.js";
import { Wire } from "/wire.js";

const by = id => document.getElementById(id);
const view = by("view"), truth = by("truth");
const LINK = 8000; // characters of a link that browsers and chats still take
const MOST_SIDE = 1024; // pixels of a picture that is uploaded

let state = null, paused = true, begun = false, busy = false, timer = 0, due = 0, speed = 10, wantsLink = null;
let pressedAt = 0, actedOn = 0, times = [], latencies = [], rewinding = 0, drawn = Promise.resolve(), dreams = 0;
const inputs = new Inputs(showKeys, pressed);
const strips = {
  value: new Strip(document.querySelector('[data-strip="value"]'), "#f3b562"),
  reward: new Strip(document.querySelector('[data-strip="reward"]'), "#5fd3a0"),
  continues: new Strip(document.querySelector('[data-strip="continues"]'), "#8fb8ff", [0, 1]),
};
const bars = new Bars(by("policy"));
const wire = new Wire(heard, connected);

function problem(text) { by("problem").textContent = text || ""; }
function say(text) { by("said").textContent = text || ""; }
const send = message => { problem(); wire.send(message); };

// What arrives

function heard(message, pictures) {
  if (message.type === "frame") return frame(message, pictures);
  if (message.type === "state") return setState(message);
  if (message.type === "reading") return reading(message);
  if (message.type === "session") return keep(message.text);
  if (message.type === "problem") { busy = false; pause(true); return problem(message.text); }
  if (message.type === "replayed") {
    pause(true);
    const words = { same: "Replayed: the same picture, bit for bit.", rounding: "Replayed: the same picture but for rounding.",
                    other: "Replayed, but the picture is not the one that was saved." };
    say(words[message.as]);
  }
}

function connected(how) {
  const words = { on: "connected", off: "connection lost, trying again", full: "all places are taken, trying again", idle: "place given up" };
  by("status").textContent = words[how];
  by("status").dataset.state = how === "on" ? "on" : "off";
  busy = false;
  if (how !== "on") { pause(true); if (how === "idle") veil("Come back", "The page was idle for a while, and its place was given up."); }
}

async function show(canvas, bytes) {
  const image = await createImageBitmap(new Blob([bytes]));
  const scale = Math.max(1, Math.round(480 / image.width));
  if (canvas.width !== image.width * scale || canvas.height !== image.height * scale) {
    canvas.width = image.width * scale;
    canvas.height = image.height * scale;
  }
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
}

function frame(message, pictures) {
  const before = drawn;
  const pressedThen = message.action === undefined ? 0 : actedOn;
  const place = state.place, dream = dreams; // of this frame: the next state may be here before it is drawn
  drawn = (async () => {
    await before;
    await Promise.all([show(view, pictures[0]), ...(pictures[1] ? [show(truth, pictures[1])] : [])]);
    by("frames").textContent = message.frame;
    by("model").textContent = Math.round(message.milliseconds);
    by("back").disabled = !message.can_go_back;
    Object.assign(view.dataset, { frame: message.frame, place, dream });
    if (message.alike !== undefined) by("alike").textContent = (message.over ? "over, " : "") + `${Math.round(100 * message.alike)} % alike`;
    if (message.action === undefined) return;
    const now = performance.now();
    if (pressedThen) {
      latencies = [...latencies, now - pressedThen].slice(-21);
      by("latency").textContent = Math.round([...latencies].sort((a, b) => a - b)[latencies.length >> 1]);
    }
    times = [...times.filter(time => now - time < 3000), now];
    if (times.length > 1) by("fps").textContent = (1000 * (times.length - 1) / (now - times[0])).toFixed(1);
    busy = false;
    if (!paused) schedule();
  })().catch(error => { busy = false; problem(error.message); });
}

function reading(message) {
  for (const [name, strip] of Object.entries(strips)) strip.add(message.frame, message[name]);
  bars.draw(message.policy);
}

// Time

function step() {
  clearTimeout(timer);
  if (busy || !state || !wire.open) return;
  busy = true;
  due = Math.max(due + 1000 / speed, performance.now());
  actedOn = pressedAt;
  pressedAt = 0;
  wire.send(inputs.take());
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(step, Math.max(0, due - performance.now()));
}

// A key brings the next frame at once, so that nobody waits for the beat.
function pressed() {
  pressedAt = pressedAt || performance.now();
  if (by("turns").checked && paused && begun) step();
  else if (!paused && !busy) { due = performance.now(); step(); }
}

function veil(text, hint) {
  by("veil").hidden = !paused || (by("turns").checked && begun);
  by("veil-text").textContent = text;
  by("veil-hint").textContent = hint || "";
}

function pause(wanted) {
  paused = wanted;
  clearTimeout(timer);
  times = [];
  by("pause").firstChild.textContent = paused ? "Play" : "Pause";
  veil(begun ? "Go on" : "Play", state && state.replaying ? "a saved session" : "click, or press P");
  if (paused && document.pointerLockElement) document.exitPointerLock();
  if (!paused) { due = performance.now(); schedule(); }
}

function play() {
  if (!state) return;
  if (wire.last === "idle") { wire.wait = 250; wire.connect(); return; }
  begun = true;
  problem();
  say();
  if (state.controls.camera && view.requestPointerLock && matchMedia("(pointer: fine)").matches)
    Promise.resolve(view.requestPointerLock()).catch(() => {});
  view.focus({ preventScroll: true });
  if (by("turns").checked) { pause(true); if (state.replaying) step(); } else pause(false);
}

function one() { begun = true; if (!paused) pause(true); veil("Go on", "click, or press P"); step(); }
function back(frames) { if (!busy && state) { pause(true); begun = true; send({ type: "back", frames }); } }
function begin(kind, more) { pause(true); say(); send({ type: "begin", kind, ...more }); }

// What there is to know

function setState(found) {
  const first = state === null, other = first || JSON.stringify(found.controls) !== JSON.stringify(state.controls);
  state = found;
  if (first || found.halt) dreams += 1; // something else is seen from now on
  by("world").textContent = found.world;
  document.title = `Reverie: ${found.world}`;
  by("stage").classList.toggle("wide", found.size[1] > 1.3 * found.size[0]);
  by("place").textContent = `Now in: ${found.place}`;
  for (const button of by("starts").children) button.hidden = !found.starts.includes(button.dataset.start);
  by("here").hidden = found.game === null;
  by("real").hidden = found.game === null;
  by("recording").hidden = !found.record;
  by("replaying").hidden = !found.replaying;
  by("record-row").hidden = !found.can_record;
  by("record").checked = found.record;
  fill("seed", found.seed);
  fill("level", found.context_level);
  by("level-out").textContent = Number(by("level").value).toFixed(2);
  by("agent").hidden = !found.tasks.length;
  by("plays").checked = found.agent;
  if (other) { inputs.controls(found.controls); controls(); bars.labels(found.policy); options(); }
  fill("task", found.task);
  fill("steps", found.sampling_steps);
  if (first) { speed = Math.min(30, Math.max(1, Math.round(found.fps))); by("speed").value = speed; by("speed-out").textContent = speed; }
  if (!found.frames) for (const strip of Object.values(strips)) strip.clear();
  checklist(found);
  if (first || found.halt) { busy = false; pause(true); }
  if (first && location.hash.startsWith("#s=")) send({ type: "replay", session: location.hash.slice(3) });
}

// What somebody is about to change is not changed under their hands.
function fill(id, value) { if (document.activeElement !== by(id) || by(id).value === "") by(id).value = value; }

function options() {
  by("task").replaceChildren(...state.tasks.map((name, i) => new Option(name, i)), new Option("no task", -1));
  const steps = [];
  for (let k = 1; k <= state.most_sampling_steps; k *= 2) steps.push(new Option(k, k));
  by("steps").replaceChildren(...steps);
}

function controls() {
  const { keys, lists, sliders, camera } = state.controls;
  by("hint").textContent = camera ? "The mouse turns the head. Escape gives it back and pauses; the game's own Escape is the key below it. "
    + "Control+W may close the tab: sprint with R." : keys.length ? "" : "Frames go on by themselves.";
  by("look").dataset.wanted = camera ? "yes" : "";
  by("look").hidden = !camera;
  by("keys").replaceChildren(...keys.map(control => {
    const key = document.createElement("span"), name = document.createElement("b");
    key.className = "key";
    key.dataset.code = control.code;
    name.textContent = nameOf(control.code);
    key.append(name, control.label);
    return key;
  }));
  by("touch").replaceChildren(...keys.filter((control, i) => keys.findIndex(k => k.label === control.label && k.component === control.component) === i)
    .map(touchButton));
  by("inputs").replaceChildren();
  for (const list of lists) if (list.labels.length > 1) by("inputs").append(choice(list));
  for (const slider of sliders) slider.labels.forEach((text, i) => by("inputs").append(range(slider, text, i)));
}

function touchButton(control) {
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  button.textContent = control.label;
  button.dataset.code = control.code;
  const source = `touch ${control.code}`;
  button.addEventListener("pointerdown", event => {
    event.preventDefault();
    button.setPointerCapture(event.pointerId);
    if (!begun) play();
    inputs.down(control.code, source);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, () => inputs.up(control.code, source));
  button.addEventListener("contextmenu", event => event.preventDefault());
  return button;
}

function labelled(text, input, out) {
  const label = document.createElement("label");
  label.append(text, input, out || "");
  return label;
}

function choice(list) {
  const select = document.createElement("select");
  list.labels.forEach((text, i) => select.add(new Option(text, i, i === list.null, i === list.null)));
  select.onchange = () => { inputs.values[list.component] = Number(select.value); pressed(); view.focus(); };
  return labelled(`hold ${list.component}`, select);
}

function range(slider, text, i) {
  const input = Object.assign(document.createElement("input"), { type: "range", min: slider.low, max: slider.high, step: "any" });
  const out = document.createElement("output");
  const show = () => { out.textContent = inputs.values[slider.component][i].toFixed(2); };
  input.value = inputs.values[slider.component][i];
  input.oninput = () => { inputs.values[slider.component][i] = Number(input.value); show(); };
  show();
  return labelled(text, input, out);
}

function showKeys() {
  for (const key of document.querySelectorAll(".key, #touch button")) key.classList.toggle("down", inputs.sources.has(key.dataset.code));
}

function checklist(found) {
  const list = found.checklist;
  by("checklist").hidden = !list;
  if (!list) return;
  const done = list.tasks.filter(task => task.mark), now = list.tasks.find(task => task.name === list.current);
  by("count").textContent = `${done.filter(task => task.mark.success).length} of ${done.length} succeeded, ${list.tasks.length - done.length} to go`
    + (now ? `; attempt ${found.attempt}` : "");
  by("do").textContent = now ? now.do : "All tasks are marked. Thank you.";
  for (const id of ["note", "success", "failure"]) by(id).hidden = !now;
  by("tasks").replaceChildren(...list.tasks.map(task => {
    const row = document.createElement("li");
    row.textContent = (task.mark ? (task.mark.success ? "\u2713 " : "\u2717 ") : "\u00b7 ") + task.name;
    row.className = task.mark ? (task.mark.success ? "good" : "bad") : (task.name === list.current ? "now" : "");
    return row;
  }));
}

// Keeping a session

async function keep(text) {
  const fits = text.length <= LINK, wanted = wantsLink;
  wantsLink = null;
  if (wanted === "link" && fits) {
    const link = `${location.origin}/#s=${text}`;
    history.replaceState(null, "", `${location.pathname}${location.search}#s=${text}`);
    try { await navigator.clipboard.writeText(link); by("kept").textContent = "The link is copied; it replays this session in this world."; }
    catch { by("kept").textContent = "The link is in the address line; it replays this session in this world."; }
    return;
  }
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  anchor.download = "reverie-session.txt";
  anchor.textContent = "reverie-session.txt";
  by("kept").replaceChildren(wanted === "link" ? "Too long for a link; saved as " : "Saved as ", anchor);
  anchor.click();
}

function ask(how) { wantsLink = how; pause(true); send({ type: "save" }); }

async function upload(file) {
  problem();
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, MOST_SIDE / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    pause(true);
    canvas.toBlob(blob => wire.send(blob), "image/png");
  } catch { problem("That file is no picture that this browser can read."); }
}

// What is pressed

const typing = event => ["TEXTAREA", "SELECT"].includes(event.target.tagName) || event.target.type === "number";
const page = {
  KeyP: () => paused ? play() : pause(true), KeyO: one, BracketLeft: () => back(1),
  Backspace: () => begin("again"), Enter: () => begin(state.start === "picture" ? "again" : state.start),
};
addEventListener("keydown", event => {
  if (typing(event) || !state || event.metaKey || event.altKey) return;
  if (event.code === "Enter" && event.target.tagName === "BUTTON") return;
  if (page[event.code]) {
    event.preventDefault();
    if (!event.repeat || event.code === "BracketLeft") page[event.code]();
  } else if (inputs.bound.has(event.code)) {
    event.preventDefault();
    if (!event.repeat) inputs.down(event.code, "keyboard");
  }
});
addEventListener("keyup", event => inputs.up(event.code, "keyboard"));
addEventListener("blur", () => { inputs.release("keyboard"); inputs.release("mouse"); });
view.addEventListener("mousedown", event => { if (!paused) { event.preventDefault(); inputs.down(`Mouse${event.button}`, "mouse"); } });
addEventListener("mouseup", event => inputs.up(`Mouse${event.button}`, "mouse"));
view.addEventListener("contextmenu", event => event.preventDefault());
document.addEventListener("mousemove", event => { if (document.pointerLockElement === view) inputs.move(event.movementX, event.movementY); });
document.addEventListener("pointerlockchange", () => { if (!document.pointerLockElement && !paused && state.controls.camera) pause(true); });

let dragged = null;
by("look").addEventListener("pointerdown", event => { by("look").setPointerCapture(event.pointerId); dragged = [event.clientX, event.clientY]; });
by("look").addEventListener("pointermove", event => {
  if (!dragged) return;
  inputs.move(2 * (event.clientX - dragged[0]), 2 * (event.clientY - dragged[1]));
  dragged = [event.clientX, event.clientY];
});
for (const end of ["pointerup", "pointercancel"]) by("look").addEventListener(end, () => { dragged = null; });

by("veil").onclick = play;
by("pause").onclick = page.KeyP;
by("one").onclick = one;
by("again").onclick = page.Backspace;
by("turns").onchange = () => { begun = true; pause(true); view.focus(); };
by("back").addEventListener("pointerdown", () => {
  back(1);
  clearInterval(rewinding);
  rewinding = setInterval(() => back(1), 90);
});
for (const end of ["pointerup", "pointerleave", "pointercancel"]) by("back").addEventListener(end, () => clearInterval(rewinding));
by("back").addEventListener("keydown", event => { if (event.code === "Enter" || event.code === "Space") { event.preventDefault(); back(1); } });
for (const button of by("starts").children)
  button.onclick = () => button.dataset.start === "picture" ? by("file").click() : begin(button.dataset.start);
by("here").onclick = () => begin("here");
by("file").onchange = () => { if (by("file").files[0]) upload(by("file").files[0]); by("file").value = ""; };
by("plays").onchange = () => send({ type: "set", agent: by("plays").checked });
by("task").onchange = () => send({ type: "set", task: Number(by("task").value) });
by("steps").onchange = () => send({ type: "set", sampling_steps: Number(by("steps").value) });
by("level").oninput = () => { by("level-out").textContent = Number(by("level").value).toFixed(2); };
by("level").onchange = () => send({ type: "set", context_level: Number(by("level").value) });
by("seed").onchange = () => send({ type: "set", seed: Math.max(0, Math.min(2 ** 53 - 1, Math.round(Number(by("seed").value) || 0))) });
by("speed").oninput = () => { speed = Number(by("speed").value); by("speed-out").textContent = speed; };
by("record").onchange = () => send({ type: "set", record: by("record").checked });
by("link").onclick = () => ask("link");
by("save").onclick = () => ask("file");
by("load").onclick = () => by("session").click();
by("session").onchange = async () => {
  const file = by("session").files[0];
  by("session").value = "";
  if (file && file.size <= 1000000) send({ type: "replay", session: (await file.text()).trim() });
  else if (file) problem("That file is too large for a session.");
};
by("success").onclick = () => mark(true);
by("failure").onclick = () => mark(false);
function mark(success) { pause(true); send({ type: "mark", success, note: by("note").value }); by("note").value = ""; }
document.querySelectorAll("button").forEach(button => button.addEventListener("click", event => { if (event.detail) button.blur(); }));
(function watch() { inputs.poll(); requestAnimationFrame(watch); })();
