// Live strips: a number over the last frames, and bars of probabilities.

const KEPT = 240;

function fitted(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale)), height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

export class Strip {
  constructor(canvas, colour, range) {
    this.canvas = canvas;
    this.out = canvas.parentElement.querySelector("b");
    this.colour = colour;
    this.range = range;
    this.points = []; // [frame, value]
  }

  add(frame, value) {
    this.points = this.points.filter(point => point[0] < frame);
    this.points.push([frame, value]);
    this.points = this.points.slice(-KEPT);
    this.out.textContent = value.toFixed(Math.abs(value) < 9.995 ? 2 : 1);
    this.draw();
  }

  clear() { this.points = []; this.out.textContent = ""; this.draw(); }

  draw() {
    const { pen, width, height } = fitted(this.canvas);
    if (!this.points.length) return;
    const values = this.points.map(point => point[1]);
    const low = this.range ? this.range[0] : Math.min(0, ...values), high = this.range ? this.range[1] : Math.max(0.01, ...values);
    const y = value => height - 4 - (value - low) / (high - low || 1) * (height - 8);
    const span = Math.max(this.points.length, KEPT / 4) - 1;
    const x = i => 4 + i * (width - 10) / span;
    pen.strokeStyle = this.colour;
    pen.lineWidth = 1.6 * (window.devicePixelRatio || 1);
    pen.lineJoin = "round";
    pen.beginPath();
    values.forEach((value, i) => pen[i ? "lineTo" : "moveTo"](x(i), y(value)));
    pen.stroke();
    pen.fillStyle = this.colour;
    pen.beginPath();
    pen.arc(x(values.length - 1), y(values[values.length - 1]), 2.6 * (window.devicePixelRatio || 1), 0, 7);
    pen.fill();
  }
}

export class Bars {
  constructor(box) { this.box = box; this.rows = []; }

  labels(policy) {
    this.rows = [];
    this.box.replaceChildren();
    for (const [component, names] of Object.entries(policy)) {
      names.slice(0, 32).forEach((name, index) => {
        const label = document.createElement("span"), canvas = document.createElement("canvas"), out = document.createElement("b");
        label.textContent = name;
        this.box.append(label, canvas, out);
        this.rows.push({ component, index, canvas, out });
      });
    }
  }

  draw(policy) {
    for (const { component, index, canvas, out } of this.rows) {
      const value = policy[component][index];
      const { pen, width, height } = fitted(canvas);
      const share = Math.min(1, Math.abs(value));
      pen.fillStyle = value < 0 ? "#ff8b8b" : "#8fb8ff";
      pen.fillRect(0, 0, share * width, height);
      out.textContent = value >= 0 && value <= 1 ? `${Math.round(100 * value)} %` : value.toFixed(2);
    }
  }
}
