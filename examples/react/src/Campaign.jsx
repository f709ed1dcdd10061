import { useQuery } from "convex/react";
import { anyApi as api } from "convex/server";

/** The switch that `npx convex run appState:set` throws, and how many codes were claimed. */
export default function Campaign({ isActive }) {
  const counts = useQuery(api.crowdfundingBackers.counts);
  return (
    <section className="card campaign" aria-label="Campaign" aria-busy={isActive === undefined || counts === undefined}>
      <p role="status" className={isActive ? "badge on" : "badge"}>
        {isActive === undefined ? "One moment…" : isActive ? "The campaign is running" : "The campaign is closed"}
      </p>
      <p>
        <output aria-label="Codes claimed">{counts?.claimed ?? "–"}</output> of {counts?.total ?? "–"} codes claimed
      </p>
      <progress aria-label="Part of the codes that were claimed" value={counts?.claimed ?? 0} max={counts?.total || 1} />
    </section>
  );
}
