// What a person presses, whatever with: keyboard, mouse, touch or gamepad; every source says which codes are down.

const NAMES = {
  Mouse0: "left button", Mouse1: "middle button", Mouse2: "right button", Backquote: "`", ArrowLeft: "\u2190", ArrowRight: "\u2192",
  ArrowUp: "\u2191", ArrowDown: "\u2193", ShiftLeft: "Shift", ControlLeft: "Control", Comma: ",", Period: ".", Slash: "/",
  Semicolon: ";", Minus: "-", Equal: "=",
};
const PAD = { 12: "ArrowUp", 13: "ArrowDown", 14: "ArrowLeft", 15: "ArrowRight" };
const DEAD = 0.35;

export const nameOf = code => NAMES[code] || code.replace(/^(Key|Digit)/, "");

export class Inputs {
  // changed: called when something goes down or up; pressed: called when it goes down
  constructor(changed, pressed) {
    this.changed = changed;
    this.pressed = pressed;
    this.sources = new Map(); // code -> who holds it
    this.taps = []; // what went down since the last frame, in order
    this.mouse = [0, 0];
    this.values = {};
    this.bound = new Set();
    this.codes = [];
    this.pad = new Set();
    this.sliders = [];
  }

  controls({ keys, lists, sliders, camera }) {
    this.codes = [...new Set(keys.map(key => key.code))];
    this.bound = new Set(this.codes);
    this.camera = camera;
    this.sliders = sliders;
    this.values = {};
    for (const slider of sliders) this.values[slider.component] = slider.labels.map(() => Math.min(Math.max(0, slider.low), slider.high));
    this.lists = lists;
  }

  down(code, source) {
    if (!this.bound.has(code)) return false;
    const holders = this.sources.get(code) || new Set();
    if (holders.has(source)) return true;
    holders.add(source);
    this.sources.set(code, holders);
    if (holders.size === 1) {
      if (!this.taps.includes(code)) this.taps.push(code);
      this.changed();
      this.pressed();
    }
    return true;
  }

  up(code, source) {
    const holders = this.sources.get(code);
    if (!holders) return;
    holders.delete(source);
    if (!holders.size) this.sources.delete(code);
    this.changed();
  }

  release(source) { for (const code of [...this.sources.keys()]) this.up(code, source); }

  move(right, down) { this.mouse = [this.mouse[0] + right, this.mouse[1] + down]; }

  // What holds for the next frame: what is held, and what was pressed and let go since the last one.
  take() {
    this.poll();
    const held = [...this.sources.keys()];
    const codes = [...held, ...this.taps.filter(code => !this.sources.has(code))].slice(0, 64);
    const mouse = this.mouse.map(x => Math.max(-9e4, Math.min(9e4, x)));
    this.taps = [];
    this.mouse = [0, 0];
    return { type: "act", codes, mouse, values: this.values };
  }

  get idle() { return !this.taps.length && !this.sources.size; }

  // Gamepads have no events: cross and left stick are arrows, buttons the keys in their order, sticks also sliders or the head.
  poll() {
    const pad = [...(navigator.getGamepads ? navigator.getGamepads() : [])].find(found => found && found.connected);
    if (!pad) return;
    const now = new Set();
    const rest = this.codes.filter(code => !Object.values(PAD).includes(code));
    pad.buttons.forEach((button, i) => {
      const code = PAD[i] || rest[i < 12 ? i : i - 4];
      if (button.pressed && code) now.add(code);
    });
    const [x = 0, y = 0, turn = 0, nod = 0] = pad.axes;
    if (this.sliders.length) this.slide(pad.axes);
    else {
      if (Math.abs(x) > DEAD) now.add(x < 0 ? "ArrowLeft" : "ArrowRight");
      if (Math.abs(y) > DEAD) now.add(y < 0 ? "ArrowUp" : "ArrowDown");
    }
    if (this.camera && Math.hypot(turn, nod) > DEAD / 2) this.move(60 * turn, 60 * nod);
    for (const code of now) this.down(code, "pad");
    for (const code of this.pad) if (!now.has(code)) this.up(code, "pad");
    this.pad = now;
  }

  slide(axes) {
    let next = 0;
    for (const slider of this.sliders) {
      this.values[slider.component] = slider.labels.map((_, i) => {
        const axis = axes[next++];
        if (axis === undefined || Math.abs(axis) < DEAD / 3) return this.values[slider.component][i];
        return slider.low + (axis + 1) / 2 * (slider.high - slider.low);
      });
    }
  }
}
