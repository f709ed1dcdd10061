// The frame of the drivers: operations as lines of JSON on stdin, their outcomes as lines on stdout.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// Required, not imported: only so are react and its like found for a package that stands in another folder (NODE_PATH).
const require = createRequire(import.meta.url);

export const load = (packageName) => ({
  ...require(`${packageName}/browser`),
  ...require(`${packageName}/server`),
  ...require(`${packageName}/values`),
});

export const loadReact = (packageName) => ({
  React: require("react"),
  ReactDom: require("react-dom/client"),
  convexReact: require(`${packageName}/react`),
});

let logs = [];

function catchPrinted() {
  for (const level of ["log", "info", "warn", "error", "debug"]) {
    console[level] = (...parts) => logs.push(parts.map(String).join(" "));
  }
  process.on("uncaughtException", (error) => logs.push(`uncaught: ${error.message}`));
  process.on("unhandledRejection", (error) => logs.push(`unhandled: ${error?.message}`));
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Look again and again until there is something other than undefined, or the time is over.
export async function found(look, seconds, what) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = look();
    if (value !== undefined) return value;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await pause(5);
  }
}

export function described(error, { ConvexError, convexToJson }) {
  const data = error instanceof ConvexError ? { data: convexToJson(error.data) } : {};
  return { message: String(error?.message ?? error), ...data };
}

// `perform` carries out one operation and returns what is to be written; what the package threw is its outcome too.
export async function obey(perform, values) {
  catchPrinted();
  for await (const line of createInterface({ input: process.stdin })) {
    let outcome;
    try {
      outcome = { value: (await perform(JSON.parse(line))) ?? null };
    } catch (error) {
      outcome = { error: described(error, values) };
    }
    process.stdout.write(JSON.stringify({ ...outcome, logs }) + "\n");
    logs = [];
  }
  process.exit(0);
}
