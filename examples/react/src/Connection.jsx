import { useConvexConnectionState } from "convex/react";

/** Whether the page hears from the server. While it does not, it shows the last it knew and keeps trying. */
export default function Connection() {
  const { isWebSocketConnected, hasEverConnected } = useConvexConnectionState();
  return (
    <p role="status" aria-label="Connection" className={isWebSocketConnected ? "badge on" : "badge off"}>
      {isWebSocketConnected ? "Live" : hasEverConnected ? "Reconnecting…" : "Connecting…"}
    </p>
  );
}
