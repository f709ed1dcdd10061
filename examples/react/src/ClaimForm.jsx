import { useMutation } from "convex/react";
import { anyApi as api } from "convex/server";
import { ConvexError } from "convex/values";
import { useState } from "react";
import { showAsClaimed } from "./optimistic.js";

/** Claiming a code. What it changes is on the page at once; a refusal takes it back and says why. */
export default function ClaimForm({ isOpen }) {
  const claim = useMutation(api.crowdfundingBackers.claim).withOptimisticUpdate(showAsClaimed);
  const [answer, setAnswer] = useState({});

  // Not as the form's `action`: what changes in one, React shows only when it has ended, the optimistic update too.
  async function submit(event) {
    event.preventDefault();
    const form = event.currentTarget;
    const entered = new FormData(form);
    const [username, accessCode] = [entered.get("username").trim(), entered.get("accessCode").trim()];
    setAnswer({ text: "Waiting for the server…" });
    try {
      await claim({ username, accessCode });
      setAnswer({ kind: "good", text: `Welcome, ${username}! The code is yours.` });
      form.reset();
    } catch (error) {
      setAnswer({ kind: "bad", text: error instanceof ConvexError ? error.data : "That did not work. Try again." });
    }
  }

  return (
    <form className="card" aria-label="Claim a code" onSubmit={submit}>
      <h2>Claim your code</h2>
      <fieldset disabled={!isOpen}>
        <label>
          Username
          <input name="username" placeholder="chidi30" required autoComplete="username" autoCapitalize="none" />
        </label>
        <label>
          Access code
          <input name="accessCode" placeholder="DEMO-30" required autoComplete="off" autoCapitalize="characters" />
        </label>
        <button>Claim</button>
      </fieldset>
      <p role="status" className={`answer ${answer.kind ?? ""}`}>
        {answer.text ?? (isOpen ? "" : "Codes can be claimed while the campaign is running.")}
      </p>
    </form>
  );
}
