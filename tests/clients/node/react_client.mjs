// Renders a screen with Convex's own React hooks for the tests: node react_client.mjs PACKAGE URL
//
// The screen shows a list twice, whole and page by page, and a counter. What it showed each time React had drawn it is
// written down, in one list with the frames on the wire.
import { Window } from "happy-dom";

import { found, load, loadReact, obey } from "./commands.mjs";
import { recordedSocket } from "./recorded_socket.mjs";

const window = new Window({ url: "http://localhost/" });
for (const [name, value] of Object.entries({ window, document: window.document, navigator: window.navigator })) {
  Object.defineProperty(globalThis, name, { value, configurable: true });
}

const [packageName, url] = process.argv.slice(2);
const values = load(packageName);
const { makeFunctionReference: reference } = values;
const { React, ReactDom, convexReact } = loadReact(packageName);
const { ConvexProvider, ConvexReactClient, useMutation, usePaginatedQuery, useQuery } = convexReact;

let events, root, client, Socket, shown;

function Screen({ listName, pageSize, onDrawn }) {
  const pages = usePaginatedQuery(reference("lists:page"), { listName }, { initialNumItems: pageSize });
  const full = useQuery(reference("lists:full"), { listName });
  const count = useQuery(reference("counters:get"), { name: listName });
  const add = useMutation(reference("counters:add")).withOptimisticUpdate((store, { name, by }) => {
    const current = store.getQuery(reference("counters:get"), { name });
    if (current !== undefined) store.setQuery(reference("counters:get"), { name }, current + by);
  });
  // Once React has put it on the screen: what it renders and throws away nobody sees.
  React.useLayoutEffect(() => onDrawn({ pages, full, count, add }));
  return React.createElement("p", null, `${pages.results.map((item) => item.seq)} of ${full}, ${count}`);
}

function mount({ listName, pageSize }) {
  const mine = (events = []);
  Socket = recordedSocket((event) => mine.push(event));
  client = new ConvexReactClient(url, { webSocketConstructor: Socket, unsavedChangesWarning: false });
  root = ReactDom.createRoot(document.body.appendChild(document.createElement("div")));
  const onDrawn = (drawn) => {
    shown = drawn;
    const { pages, full, count } = drawn;
    const loaded = pages.results.map((item) => item.seq);
    mine.push({ kind: "drawn", status: pages.status, loaded, full: full ?? null, count: count ?? null });
  };
  const screen = React.createElement(Screen, { listName, pageSize, onDrawn });
  root.render(React.createElement(ConvexProvider, { client }, screen));
}

async function unmount() {
  root?.unmount();
  await client?.close();
  root = client = undefined;
}

async function perform(operation) {
  switch (operation.call) {
    case "mount":
      await unmount();
      return mount(operation);
    case "loadMore":
      return shown.pages.loadMore(operation.count);
    case "add":
      // Not waited for: several of them are to be under way at once.
      for (let i = 0; i < operation.times; i++) void shown.add({ name: operation.name, by: 1 });
      return;
    case "events":
      return await found(
        () => (events.length > operation.after ? events.slice(operation.after) : undefined),
        operation.seconds,
        "something to happen",
      );
    case "dropConnection":
      return Socket.current.terminate();
    case "unmount":
      return await unmount();
    default:
      throw new Error(`this driver does not know the call ${operation.call}`);
  }
}

await obey(perform, values);
