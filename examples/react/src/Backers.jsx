import { usePaginatedQuery } from "convex/react";
import { anyApi as api } from "convex/server";

const PAGE = 10;

/** Everybody on the list, the newest first. Pages that are loaded stay live, and stay next to each other. */
export default function Backers() {
  const { results, status, loadMore } = usePaginatedQuery(api.crowdfundingBackers.list, {}, { initialNumItems: PAGE });
  return (
    <section className="card backers" aria-labelledby="backers">
      <h2 id="backers">Backers</h2>
      {status === "Exhausted" && results.length === 0 && <p>Nobody is on the list yet.</p>}
      <ul>
        {results.map((backer) => (
          <Backer key={backer._id} {...backer} />
        ))}
      </ul>
      {status !== "Exhausted" && (
        <button className="quiet" disabled={status !== "CanLoadMore"} onClick={() => loadMore(PAGE)}>
          {status === "CanLoadMore" ? "Load more" : "Loading…"}
        </button>
      )}
    </section>
  );
}

function Backer({ username, tier, claimed }) {
  return (
    <li>
      <span className={`avatar ${tier.toLowerCase()}`} aria-hidden="true">
        {username.slice(0, 2)}
      </span>
      <span className="who">
        <b>{username}</b>
        <small>{tier}</small>
      </span>
      <span className={claimed ? "badge on" : "badge"}>{claimed ? "claimed" : "open"}</span>
    </li>
  );
}
