// Requests to the page's server: each failure is an Error with a readable message.
let token = "";

/** Load the page's settings; `post` sends the token of this start. */
export async function start() {
  const answer = await get("/api/start");
  token = answer.token;
  return answer;
}

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters).toString();
  return read(() => fetch(query ? `${path}?${query}` : path, { signal }));
}

export async function post(path, content) {
  const headers = { "content-type": "application/json", "x-srp4ctr-token": token };
  return read(() => fetch(path, { method: "POST", headers, body: JSON.stringify(content) }));
}

async function read(request) {
  let answer;
  try {
    answer = await request();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The page's server does not answer: start it again with `srp4ctr monitor open`.");
  }
  let content;
  try {
    content = await answer.json();
  } catch {
    throw new Error(`The answer was no JSON (status ${answer.status}).`);
  }
  if (!answer.ok) {
    const error = new Error(content.error ?? `Status ${answer.status}`);
    error.mayPass = answer.status === 503; // Triton, the store or the broker is down
    throw error;
  }
  return content;
}
