// The generated pages of docs/: prose with the tables of the code put in. Pure, so that the script and the test share it.

/** @param {string} prose @param {readonly {name: string}[]} structs @param {(struct: any) => string} toMarkdown */
export function formatPage(prose, structs, toMarkdown) {
  const rest = new Map(structs.map((struct) => [struct.name, struct]))
  const page = prose.replace(/^<!-- table: (\w+) -->$/gm, (_, name) => {
    const struct = rest.get(name)
    if (struct === undefined) throw new Error(`docs/format/prose: no structure ${name}, or it is shown twice`)
    rest.delete(name)
    return toMarkdown(struct)
  })
  if (rest.size > 0) throw new Error(`docs/format/prose: nowhere ${[...rest.keys()].join(', ')}`)
  return `<!-- Written by scripts/generate-docs.mjs from docs/format/prose and src/format. -->\n\n${page}`
}

/** @param {Record<string, {retry: boolean, meaning: string}>} table */
export function errorsPage(table) {
  const rows = Object.entries(table).map(([code, { retry, meaning }]) => `| \`${code}\` | ${retry ? 'yes' : 'no'} | ${meaning} |`)
  return `<!-- Written by scripts/generate-docs.mjs from src/core/errors.ts. -->

# Error codes

Every failure that a caller may act on is an error with one of these codes in \`code\`; \`context\` has the values, \`cause\` what was underneath. Match
on the code, not on the class or the text. "Retry" says whether the same call may succeed later.

| Code | Retry | Meaning |
| --- | --- | --- |
${rows.join('\n')}
`
}
