// Drives Convex's own ConvexClient over the WebSocket for the tests: node sync_client.mjs PACKAGE
//
// Operations and outcomes are lines of JSON as in http_client.mjs. What happens by itself (frames, results of
// subscriptions, changes of sign-in) is written down in one list in its order, which `events` hands out.
import { described, found, load, obey } from "./commands.mjs";
import { recordedSocket } from "./recorded_socket.mjs";

const values = load(process.argv[2]);
const { ConvexClient, makeFunctionReference, convexToJson, jsonToConvex } = values;

let client, Socket, events, subscriptions, started;

function open(url, options) {
  events = [];
  subscriptions = new Map();
  started = new Map();
  const mine = events;
  Socket = recordedSocket((event) => mine.push(event));
  client = new ConvexClient(url, { ...options, webSocketConstructor: Socket, unsavedChangesWarning: false });
}

function subscribe(as, reference, args) {
  const mine = events;
  const unsubscribe = client.onUpdate(
    reference,
    args,
    (value) => mine.push({ kind: "value", as, value: convexToJson(value) }),
    (error) => mine.push({ kind: "error", as, error: described(error, values) }),
  );
  subscriptions.set(as, unsubscribe);
}

// An optimistic update that adds `by` to the number a query shows.
function optimistically({ path, args, by }) {
  return (store) => {
    const current = store.getQuery(makeFunctionReference(path), args);
    if (current !== undefined) store.setQuery(makeFunctionReference(path), args, current + by);
  };
}

function call({ call, path, args, shows }) {
  const reference = makeFunctionReference(path);
  // Only the client beneath takes optimistic updates in every version.
  return shows === undefined
    ? client[call](reference, args)
    : client.client.mutation(path, args, { optimisticUpdate: optimistically(shows) });
}

// fetchToken gives the tokens in turn and then the last one again and again; each call is written down.
function setAuth(tokens) {
  const mine = events;
  let next = 0;
  client.setAuth(
    async ({ forceRefreshToken }) => {
      mine.push({ kind: "fetch", forced: forceRefreshToken });
      return tokens[Math.min(next++, tokens.length - 1)];
    },
    (isAuthenticated) => mine.push({ kind: "auth", isAuthenticated }),
  );
}

async function perform(operation) {
  const { as, path, token, identity, seconds, after } = operation;
  const args = operation.args === undefined ? {} : jsonToConvex(operation.args);
  switch (operation.call) {
    case "open":
      await client?.close();
      return open(operation.url, operation.options ?? {});
    case "close":
      await client?.close();
      client = undefined;
      return;
    case "subscribe":
      return subscribe(as, makeFunctionReference(path), args);
    case "unsubscribe":
      return subscriptions.get(as)();
    case "start": {
      const promise = call({ ...operation, call: operation.what, args });
      const outcome = {};
      promise.then(
        (value) => (outcome.settled = { value: convexToJson(value) }),
        (error) => (outcome.settled = { error }),
      );
      started.set(as, outcome);
      return;
    }
    case "finish": {
      const { value, error } = await found(() => started.get(as).settled, seconds, as);
      if (error) throw error;
      return value;
    }
    case "events":
      return await found(() => (events.length > after ? events.slice(after) : undefined), seconds, "something to happen");
    case "dropConnection":
      return Socket.current.terminate();
    case "setAuth":
      return setAuth(operation.tokens);
    case "setAdminAuth":
      return client.setAdminAuth(token, identity);
    case "clearAuth":
      return client.client.clearAuth();
    default:
      throw new Error(`this driver does not know the call ${operation.call}`);
  }
}

await obey(perform, values);
