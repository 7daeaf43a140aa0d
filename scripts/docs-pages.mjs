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

const COMMANDS = [
  ['nydusify', 'Whole images. Exit codes: 0 done, 1 failed or differs, 130/143 interrupted; each kind of refused image has a code of its own (`convert`\'s reasons are below).', ['convert', 'check', 'mount', 'serve', 'ls', 'cat']],
  ['nydus-image', 'One RAFS file system. Exit codes: 0 done, 1 failed, 2 usage error or layers that cannot be merged.', ['create', 'merge', 'check', 'inspect', 'stat', 'unpack']],
  ['nydusctl', 'Looks after daemons and their caches. Exit codes: 0 done, 1 failed or damage found, 2 usage error.', ['info', 'set', 'metrics', 'top', 'mount', 'umount', 'cache ls', 'cache gc', 'cache verify']],
  ['nydusd', 'The daemon. Exit codes: 0 ended in good order, 1 failed, 2 usage error.', []],
]

/** @param {(program: string, ...argv: string[]) => string} help @param {Record<string, {exitCode: number, meaning: string}>} refusals */
export function cliPage(help, refusals) {
  const rows = Object.entries(refusals).map(([reason, { exitCode, meaning }]) => `| ${exitCode} | \`${reason}\` | ${meaning} |`)
  const sections = COMMANDS.map(([program, prose, commands]) => [
    `## ${program}\n\n${prose}\n\n\`\`\`\n${help(program)}\n\`\`\``,
    ...commands.map((command) => `### ${program} ${command}\n\n\`\`\`\n${help(program, ...command.split(' '))}\n\`\`\``),
  ].join('\n\n'))
  return `<!-- Written by scripts/generate-docs.mjs from the programs' --help. -->\n\n# Command lines\n\n${sections.join('\n\n')}

## Images that nydusify refuses

The exit code says what kind of image it is; \`Reason\` in \`--output-json\` has the word.

| Exit code | Reason | Meaning |
| --- | --- | --- |
${rows.join('\n')}\n`
}
