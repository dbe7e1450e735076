// The OpenAPI document as a page, without anything from another host.

const SHOWN = 72;
const KEY = "edgegeo-key"; // where the first page keeps the API key that it asked for (api.js)

function element(kind, className, ...children) {
  const node = document.createElement(kind);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// Text with `code` in it.
function rich(text) {
  return text.split("`").map((piece, i) => (i % 2 ? element("code", "", piece) : piece));
}

// One schema in a few words: "string", "array of number", "TextPart or ImagePart".
function named(schema, document) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map((choice) => named(choice, document)))].join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of (${named(schema.items, document)})`;
  return schema.format === "binary" ? "file" : (schema.type ?? "any");
}

function resolved(schema, document) {
  if (!schema?.$ref) return schema;
  const name = schema.$ref.split("/").pop();
  return document.components.schemas[name] ?? {};
}

function limits(schema) {
  const said = [];
  for (const part of [schema, ...(schema.anyOf ?? [])]) {
    if (part.minimum !== undefined) said.push(`from ${part.minimum}`);
    if (part.maximum !== undefined) said.push(`to ${part.maximum}`);
  }
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  return said.join(", ");
}

function fields(schema, document) {
  const table = element("table");
  table.append(element("tr", "", ...["field", "type", "meaning"].map((title) => element("th", "", title))));
  const required = new Set(schema.required ?? []);
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const meaning = [field.description, limits(field)].filter(Boolean).join("; ");
    const title = element("code", "", name);
    const cell = element("td", "", title, required.has(name) ? " (required)" : "");
    table.append(element("tr", "", cell, element("td", "", named(field, document)), element("td", "soft", ...rich(meaning))));
  }
  return table;
}

// Pictures are cut for reading; the document has them whole.
const isLong = (value) => typeof value === "string" && value.length > SHOWN && !value.includes(" ");
const shortened = (value) => JSON.stringify(value, (_, v) => (isLong(v) ? `${v.slice(0, SHOWN)}...` : v), 2);

// A command that sends a form: every file, and what else has to be there.
function formCommand(address, schema, headers) {
  const parts = [];
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const file = (field.items ?? field).format === "binary";
    if (file || schema.required?.includes(name)) parts.push(`-F ${name}=${file ? "@photo.jpg" : "..."}`);
  }
  return `curl -s http://${location.host}${address} ${headers}${parts.join(" ")}`;
}

// An example as a command, and a button that sends it from here.
function trial(verb, address, example, headers) {
  const command = `curl -s http://${location.host}${address} ${headers}-H 'content-type: application/json' -d '${shortened(example)}'`;
  const button = element("button", "button small", "Send it");
  const result = element("div", "");
  button.type = "button";
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const key = sessionStorage.getItem(KEY);
      const sent = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
      const answer = await fetch(address, { method: verb.toUpperCase(), body: JSON.stringify(example), headers: sent });
      const text = await answer.text();
      const shown = answer.headers.get("content-type")?.includes("json") ? shortened(JSON.parse(text)) : text;
      result.replaceChildren(element("p", "soft", `Status ${answer.status}`), element("pre", "", shown));
    } catch (fault) {
      result.replaceChildren(element("p", "fault", `No answer: ${fault.message}`));
    }
    button.disabled = false;
  });
  result.setAttribute("aria-live", "polite");
  return [element("h3", "", "Example"), element("pre", "", command), element("p", "", button), result];
}

function request(address, verb, said, document) {
  const shown = [];
  const headers = said.security ? "-H 'x-admin-key: KEY' " : "";
  for (const [kind, content] of Object.entries(said.requestBody?.content ?? {})) {
    const schema = resolved(content.schema, document);
    shown.push(element("h3", "", `Request: ${kind}`), fields(schema, document));
    for (const example of schema.examples ?? []) shown.push(...trial(verb, address, example, headers));
    if (kind === "multipart/form-data") shown.push(element("pre", "", formCommand(address, schema, headers)));
  }
  if (said.parameters?.length) {
    const entries = said.parameters.map((p) => {
      const where = [p.description, `in the ${p.in}`].filter(Boolean).join("; ");
      return [p.name, { ...p.schema, description: where }];
    });
    shown.push(element("h3", "", "Parameters"), fields({ properties: Object.fromEntries(entries) }, document));
  }
  return shown;
}

function answers(said, document) {
  const shown = [];
  for (const [kind, content] of Object.entries(said.responses?.["200"]?.content ?? {})) {
    const schema = resolved(content.schema, document);
    const examples = schema?.examples ?? (content.example ? [content.example] : []);
    if (!schema?.properties && !examples.length) continue;
    shown.push(element("h3", "", `Answer: ${kind}`));
    if (schema.properties) shown.push(fields(schema, document));
    for (const example of examples) shown.push(element("pre", "", typeof example === "string" ? example : shortened(example)));
  }
  return shown;
}

function operation(address, verb, said, document) {
  const card = element("details", "card");
  const summary = element("summary", "", element("span", "verb", verb.toUpperCase()), element("code", "", address));
  summary.append(element("span", "soft", said.summary ?? ""));
  card.append(summary, ...request(address, verb, said, document), ...answers(said, document));
  const codes = Object.entries(said.responses ?? {}).filter(([code]) => code !== "200");
  if (codes.length) {
    const table = element("table");
    for (const [code, response] of codes) {
      table.append(element("tr", "", element("td", "", code), element("td", "soft", ...rich(response.description))));
    }
    card.append(element("h3", "", "Otherwise"), table);
  }
  return card;
}

async function begin() {
  const document_ = await (await fetch("/openapi.json")).json();
  document.getElementById("title").textContent = `${document_.info.title} ${document_.info.version}`;
  document.getElementById("about").append(...rich(document_.info.description));
  const groups = new Map();
  for (const [address, verbs] of Object.entries(document_.paths)) {
    for (const [verb, said] of Object.entries(verbs)) {
      const group = said.tags?.[0] ?? "other";
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(operation(address, verb, said, document_));
    }
  }
  const place = document.getElementById("operations");
  for (const [group, cards] of groups) place.append(element("h2", "", group), ...cards);
  const schemas = Object.entries(document_.components?.schemas ?? {});
  place.append(element("h2", "", "schemas"));
  for (const [name, schema] of schemas) {
    const card = element("details", "card", element("summary", "", element("code", "", name), element("span", "soft", ...rich(schema.description ?? ""))));
    card.append(fields(schema, document_));
    place.append(card);
  }
  document.body.dataset.state = "done";
}

begin();
