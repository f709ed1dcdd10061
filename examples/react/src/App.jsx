import { useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import Backers from "./Backers.jsx";
import Campaign from "./Campaign.jsx";
import ClaimForm from "./ClaimForm.jsx";
import Connection from "./Connection.jsx";

/** The whole page. Nothing in it asks again, polls or refreshes: queries are live. */
export default function App() {
  const state = useQuery(api.appState.get);
  return (
    <>
      <header>
        <img src="/arch.svg" alt="" />
        <h1>Early access</h1>
        <Connection />
      </header>
      <main>
        <div>
          <Campaign isActive={state?.crowdfundingActive} />
          <ClaimForm isOpen={state?.crowdfundingActive ?? false} />
          <Operator />
        </div>
        <Backers />
      </main>
    </>
  );
}

/** What to type beside the page to see it change. */
function Operator() {
  return (
    <section className="card" aria-labelledby="operator">
      <h2 id="operator">In a terminal beside this page</h2>
      <pre>npx convex run crowdfundingBackers:addSamples</pre>
      <pre>npx convex run appState:set '{'{"crowdfundingActive": true}'}'</pre>
    </section>
  );
}
