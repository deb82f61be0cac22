#!/usr/bin/env node
// Runs a command through the JSON mode.
//
//     node client.js CAPSULECTL
const { spawnSync } = require("node:child_process");

// run gives the ExecutionResponse of an ExecutionRequest, for refusals too.
function run(request, capsulectl = "capsulectl") {
  const done = spawnSync(capsulectl, ["run", "--json", "--exit-code-mode", "envelope"], {
    input: JSON.stringify(request),
    maxBuffer: 1 << 28,
  });
  if (done.error) throw done.error;
  return JSON.parse(done.stdout);
}

const capsulectl = process.argv[2] || "capsulectl";
for (const request of [{ command: ["echo", "42"] }, { command: ["no-such-program"] }]) {
  const response = run(request, capsulectl);
  console.log(response.status, response.termination.reason, response.exit_code, JSON.stringify(response.stdout ?? null));
  if (response.error) console.log("  ", response.error.code, response.error.message);
}
