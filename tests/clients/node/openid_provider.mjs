// A real OpenID provider for the tests, on a free port of this machine: node openid_provider.mjs
//
// Every line on stdin is a request, every line on stdout its answer. {"keys": {keys: [...]}, "clients": [...]}, private keys as
// JWKs, starts it or, sent again, makes it go on with other keys: {"issuer": "http://..."}. Everybody who signs in with some name is
// that account, and nobody is asked for consent.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

// It warns that what it keeps is in memory, and that signing in needs no password here: both are meant.
for (const level of ["info", "warn"]) console[level] = () => {};

let answer = (request, response) => response.writeHead(503).end();
const server = createServer((request, response) => answer(request, response));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

function provider({ keys, clients }) {
  return new Provider(issuer, {
    jwks: keys,
    clients,
    cookies: { keys: ["tests"] },
    claims: { openid: ["sub"], profile: ["name", "given_name", "picture"], email: ["email", "email_verified"] },
    conformIdTokenClaims: false, // so that the ID token has them all, as Convex's users have it set up
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
    findAccount: (context, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        name: `${id} of the provider`,
        given_name: id,
        picture: `${issuer}/${id}.png`,
        email: `${id}@example.com`,
        email_verified: true,
      }),
    }),
    async loadExistingGrant(context) {
      const grant = new context.oidc.provider.Grant({
        clientId: context.oidc.client.clientId,
        accountId: context.oidc.session.accountId,
      });
      grant.addOIDCScope("openid profile email");
      await grant.save();
      return grant;
    },
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  answer = provider(JSON.parse(line)).callback();
  process.stdout.write(JSON.stringify({ issuer }) + "\n");
}
process.exit();
