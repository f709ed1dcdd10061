import { optimisticallyUpdateValueInPaginatedQuery } from "convex/react";
import { anyApi as api } from "convex/server";

/** What the page shows from the click until the server's own values, claim included, are there. */
export function showAsClaimed(store, { username }) {
  const counts = store.getQuery(api.crowdfundingBackers.counts);
  if (counts) {
    store.setQuery(api.crowdfundingBackers.counts, {}, { ...counts, claimed: counts.claimed + 1 });
  }
  optimisticallyUpdateValueInPaginatedQuery(store, api.crowdfundingBackers.list, {}, (backer) =>
    backer.username === username ? { ...backer, claimed: true } : backer,
  );
}
