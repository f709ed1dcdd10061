// Drives Convex's own ConvexHttpClient for the tests: node http_client.mjs PACKAGE URL
//
// Every line on stdin is one operation, {"call", "path", "args"} with the arguments as Convex-encoded JSON; every line
// on stdout its outcome: {"value"} or {"error": {"message", "data"}}, and {"logs"} with what the client printed meanwhile.
// Values are encoded by the package itself, so what a test sees is what the client handed to its user.
import { createInterface } from "node:readline";

const [packageName, url] = process.argv.slice(2);
const { ConvexHttpClient } = await import(`${packageName}/browser`);
const { makeFunctionReference } = await import(`${packageName}/server`);
const { ConvexError, convexToJson, jsonToConvex } = await import(`${packageName}/values`);

let logs = [];
for (const level of ["log", "info", "warn", "error", "debug"]) {
  console[level] = (...parts) => logs.push(parts.join(" "));
}

const client = new ConvexHttpClient(url, { skipConvexDeploymentUrlCheck: true });

async function perform({ call, path, args, token, identity }) {
  const reference = path === undefined ? undefined : makeFunctionReference(path);
  const values = args === undefined ? {} : jsonToConvex(args);
  switch (call) {
    case "query":
    case "mutation":
    case "action":
    case "consistentQuery":
      return await client[call](reference, values);
    case "function":
      return await client.function(reference, undefined, values);
    case "setAuth":
      return client.setAuth(token) ?? null;
    case "setAdminAuth":
      return client.setAdminAuth(token, identity) ?? null;
    case "clearAuth":
      return client.clearAuth() ?? null;
    default:
      throw new Error(`this driver does not know the call ${call}`);
  }
}

async function outcome(operation) {
  logs = [];
  try {
    return { value: convexToJson(await perform(operation)), logs };
  } catch (error) {
    const data = error instanceof ConvexError ? { data: convexToJson(error.data) } : {};
    return { error: { message: error.message, ...data }, logs };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await outcome(JSON.parse(line))) + "\n");
}
