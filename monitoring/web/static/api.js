// Requests to the page's server: each failure is an Error with a readable message.
const LONGEST_MS = 30_000;

/** Return the document at `address`, as text. */
export async function page(address) {
  const answer = await send(address, {});
  if (!answer.ok) throw new Error(`The page's server failed with status ${answer.status}: its terminal says why.`);
  return answer.text();
}

export async function get(path, parameters) {
  return read(`${path}?${new URLSearchParams(parameters)}`, {});
}

/** Send `content`, with the token of this start: no other site's page has it. */
export async function post(path, content) {
  const token = document.querySelector("meta[name=srp4ctr-token]").content;
  const headers = { "content-type": "application/json", "x-srp4ctr-token": token };
  return read(path, { method: "POST", headers, body: JSON.stringify(content) });
}

async function read(address, options) {
  const answer = await send(address, options);
  const content = await answer.json().catch(() => {
    throw new Error(`The answer was no JSON (status ${answer.status}).`);
  });
  if (answer.ok) return content;
  const error = new Error(content.error);
  error.mayPass = answer.status === 503; // Triton, the store or the broker is down
  throw error;
}

async function send(address, options) {
  try {
    return await fetch(address, { ...options, signal: AbortSignal.timeout(LONGEST_MS) });
  } catch {
    throw new Error("The page's server does not answer: start it again with `srp4ctr monitor open`.");
  }
}
