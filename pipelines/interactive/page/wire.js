// The one socket of the page: JSON up, JSON and pictures down; comes back by itself when the connection is lost.

const token = new URLSearchParams(location.search).get("token");

function unpacked(buffer) {
  const view = new DataView(buffer), count = view.getUint32(0);
  const parts = [];
  let at = 4 * (count + 1);
  for (let i = 0; i < count; i++) {
    const length = view.getUint32(4 * (i + 1));
    parts.push(new Uint8Array(buffer, at, length));
    at += length;
  }
  return { message: JSON.parse(new TextDecoder().decode(parts[0])), pictures: parts.slice(1) };
}

export class Wire {
  // heard: message, pictures -> anything; changed: "on", "off", "full" or "idle" -> anything
  constructor(heard, changed) {
    this.heard = heard;
    this.changed = changed;
    this.key = null;
    this.wait = 250;
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/play` + (token ? `?token=${encodeURIComponent(token)}` : ""));
    this.socket = socket;
    this.last = "off";
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send({ type: "hello", resume: this.key });
    socket.onmessage = event => {
      if (typeof event.data !== "string") {
        const { message, pictures } = unpacked(event.data);
        return this.heard(message, pictures);
      }
      const message = JSON.parse(event.data);
      if (message.type === "welcome") { this.key = message.key; this.wait = 250; this.last = "off"; return this.changed("on"); }
      if (message.type === "full" || message.type === "idle") { this.last = message.type; return this.changed(message.type); }
      this.heard(message, []);
    };
    socket.onclose = () => {
      if (this.socket !== socket) return;
      if (this.last === "off") this.changed("off");
      if (this.last === "idle") { this.key = null; return; }
      setTimeout(() => this.connect(), this.last === "full" ? 4000 : this.wait);
      this.wait = Math.min(2 * this.wait, 8000);
    };
  }

  get open() { return this.socket.readyState === WebSocket.OPEN; }

  send(message) { if (this.open) this.socket.send(message instanceof Blob ? message : JSON.stringify(message)); }
}
