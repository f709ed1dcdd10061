// A WebSocket for Convex's clients that writes down every frame, in the order in which the client sees and sends them.
import { createRequire } from "node:module";

const WebSocket = createRequire(import.meta.url)("ws");

// The class to give a client as `webSocketConstructor`; `write` gets {"kind": "opened" | "sent" | "received" | "closed", …}.
export function recordedSocket(write) {
  return class extends WebSocket {
    static current;

    constructor(url) {
      super(url);
      this.constructor.current = this;
      // Before the client's own listeners, so that a frame stands before what the client makes of it.
      this.on("open", () => write({ kind: "opened", url }));
      this.on("message", (data) => write({ kind: "received", message: JSON.parse(data.toString()) }));
      this.on("close", (code, reason) => write({ kind: "closed", code, reason: reason.toString() }));
    }

    send(data) {
      write({ kind: "sent", message: JSON.parse(data) });
      super.send(data);
    }
  };
}
