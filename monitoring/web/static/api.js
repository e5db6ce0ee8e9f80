// Requests to the page's server: each failure is an Error with a readable message.
const LONGEST_MS = 30_000;
let token = "";

/** Load the page's settings; `post` sends the token of this start. */
export async function start() {
  const answer = await get("/api/start");
  token = answer.token;
  return answer;
}

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters).toString();
  return read(query ? `${path}?${query}` : path, { signal });
}

export async function post(path, content) {
  const headers = { "content-type": "application/json", "x-srp4ctr-token": token };
  return read(path, { method: "POST", headers, body: JSON.stringify(content) });
}

async function read(address, { signal, ...options }) {
  const signals = [signal, AbortSignal.timeout(LONGEST_MS)].filter(Boolean);
  let answer;
  let content;
  try {
    answer = await fetch(address, { ...options, signal: AbortSignal.any(signals) });
    content = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "SyntaxError") throw new Error(`The answer was no JSON (status ${answer.status}).`);
    throw new Error("The page's server does not answer: start it again with `srp4ctr monitor open`.");
  }
  if (!answer.ok) {
    const error = new Error(content.error ?? `Status ${answer.status}`);
    error.mayPass = answer.status === 503; // Triton, the store or the broker is down
    throw error;
  }
  return content;
}
