// Calls to the server: they carry the key, ask for it where it is missing, and turn every failure into one sentence.

const KEY = "edgegeo-key";
const $ = (id) => document.getElementById(id);

/** A failure that can be shown as it is. */
export class Fault extends Error {
  constructor(line, code = null) {
    const sentence = line.charAt(0).toUpperCase() + line.slice(1);
    super(/[.!?]$/.test(sentence) ? sentence : `${sentence}.`);
    this.code = code;
  }
}

let asking = null; // one dialog for all calls that wait for a key

function askKey({ message: line, code }) {
  asking ??= new Promise((resolve, reject) => {
    const [dialog, field] = [$("key-dialog"), $("key")];
    $("key-fault").textContent = code === "missing_api_key" ? "Whoever runs it can tell you." : line;
    field.value = "";
    let given = null;
    const submit = () => (given = field.value.trim());
    $("key-form").addEventListener("submit", submit, { once: true });
    $("key-cancel").onclick = () => dialog.close();
    dialog.addEventListener(
      "close",
      () => {
        $("key-form").removeEventListener("submit", submit);
        asking = null;
        if (!given) return reject(new Fault(line, "no_key"));
        sessionStorage.setItem(KEY, given);
        return resolve(given);
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

async function fault(response) {
  const body = await response.json().catch(() => null);
  return new Fault(body?.error?.message ?? `the server answered ${response.status}`, body?.error?.code);
}

/** A fetch whose answer is fine; anything else is thrown as a Fault, or as the AbortError that it is. */
export async function call(address, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
    const response = await fetch(address, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new Fault("The server does not answer. Is it still running?");
    });
    if (response.ok) return response;
    const line = await fault(response);
    if (response.status !== 401) throw line;
    // Another call may have been given a key meanwhile.
    if (sessionStorage.getItem(KEY) === key) {
      sessionStorage.removeItem(KEY);
      await askKey(line);
    }
  }
}

export const fetchJson = async (address, options) => (await call(address, options)).json();

/** Address of a picture on this page; fetched, as an <img> cannot send the key. */
export const picture = async (address) => URL.createObjectURL(await (await call(address)).blob());
