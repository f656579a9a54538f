// SPDX-License-Identifier: Apache-2.0
// Talks to the server. A refusal is an Error with the server's words; a lost connection a Lost.

export class Lost extends Error {}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Lost("the connection to the seed editor is lost");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `the seed editor answers ${answer.status}`);
}

export const getJson = async (path) => (await ask(path)).json();

export const post = async (path, body) =>
  (await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

// {bitmap, stamp, width, height}, or null where there is nothing new. The stamp is text: numbers do not hold it.
export async function getFrame(query) {
  const answer = await ask(`/api/frame?${new URLSearchParams(query)}`);
  if (answer.status === 204) return null;
  const [width, height] = answer.headers.get("X-Size").split("x").map(Number);
  const bitmap = await createImageBitmap(await answer.blob());
  return { bitmap, stamp: answer.headers.get("X-Stamp"), width, height };
}
