// Verifies with @simplewebauthn/server from the node_modules in the folder given as the argument; README.md has
// the shapes.

import { createRequire } from "node:module";
import { webcrypto } from "node:crypto";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";

// SimpleWebAuthn needs the global that came with Node 20; Debian 12 has 18. Set before the library loads.
globalThis.crypto ??= webcrypto;
const require = createRequire(resolve(process.argv[2], "package.json"));
const { verifyRegistrationResponse, verifyAuthenticationResponse } = require("@simplewebauthn/server");
const { decodeAttestationObject, decodeCredentialPublicKey, cose } = require("@simplewebauthn/server/helpers");

const encode = (bytes) => Buffer.from(bytes).toString("base64url");

let request;
try {
  request = parse(JSON.parse(await text(process.stdin)));
} catch (error) {
  // Not exit code 1: a test that waits for a refusal must not take its own mistake for one.
  end(2, { ok: false, error: `the request is malformed: ${error.message}` });
}
try {
  const verify = request.kind === "registration" ? verifyRegistration : verifyAuthentication;
  end(0, { ok: true, ...(await verify(request)) });
} catch (error) {
  end(1, { ok: false, error: `${error.name}: ${error.message}` });
}

async function verifyRegistration(request) {
  const { verified, registrationInfo } = await verifyRegistrationResponse(common(request));
  if (!verified) throw new Error("the attestation statement could not be verified");
  const { fmt, aaguid, userVerified, credential, attestationObject } = registrationInfo;
  if (fmt !== request.attestation) {
    throw new Error(`attestation format is ${fmt}, not ${request.attestation}`);
  }
  checkAlgorithm(decodeAttestationObject(attestationObject).get("attStmt"), credential);
  checkId(request, credential.id);
  return { fmt, aaguid, userVerified, credential: answer(credential) };
}

async function verifyAuthentication(request) {
  const { id, publicKey, signCount } = request.credential;
  const credential = { id, publicKey: new Uint8Array(Buffer.from(publicKey, "base64url")), counter: signCount };
  const { verified, authenticationInfo } = await verifyAuthenticationResponse({
    ...common(request),
    credential,
  });
  if (!verified) throw new Error("the signature could not be verified");
  checkId(request, id);
  const { userVerified, newCounter } = authenticationInfo;
  return { userVerified, credential: answer({ ...credential, counter: newCounter }) };
}

function common(request) {
  return {
    response: request.response,
    expectedChallenge: request.challenge,
    expectedOrigin: request.origin,
    expectedRPID: request.rpId,
    requireUserVerification: request.requireUserVerification,
  };
}

// WebAuthn L3 §8.2, self attestation: the library verifies the signature only.
function checkAlgorithm(statement, credential) {
  const algorithm = decodeCredentialPublicKey(credential.publicKey).get(cose.COSEKEYS.alg);
  if (statement.has("sig") && !statement.has("x5c") && statement.get("alg") !== algorithm) {
    throw new Error("the attestation statement's alg is not the credential's");
  }
}

// The library takes the response's id on trust.
function checkId(request, id) {
  if (request.response.id !== id) throw new Error("the response's id is not the credential's");
}

function answer({ id, publicKey, counter }) {
  return { id, publicKey: encode(publicKey), signCount: counter };
}

function parse(request) {
  const need = (fine, name) => {
    if (!fine) throw new TypeError(`${name} is missing or of the wrong type`);
  };
  const { kind, attestation, credential } = request;
  for (const name of ["origin", "rpId", "challenge"]) need(typeof request[name] === "string", name);
  need(request.response && typeof request.response === "object", "response");
  need(typeof request.requireUserVerification === "boolean", "requireUserVerification");
  if (kind === "registration") {
    need(attestation === "none" || attestation === "packed", "attestation");
  } else {
    need(kind === "authentication", "kind");
    need(typeof credential?.id === "string", "credential.id");
    need(typeof credential?.publicKey === "string", "credential.publicKey");
    need(Number.isInteger(credential?.signCount), "credential.signCount");
  }
  return request;
}

function end(code, answer) {
  console.log(JSON.stringify(answer));
  process.exit(code);
}
