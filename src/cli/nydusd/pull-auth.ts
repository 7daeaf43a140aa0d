// IMAGE_PULL_AUTH, taken out of the environment: no program that the daemon runs (a credential helper, prlimit) is to inherit it.

/** base64 of user:password, instead of a registry's `auth`; undefined where the environment has none, or after the first call. */
export function takePullAuth(): string | undefined {
  const given = process.env['IMAGE_PULL_AUTH']
  delete process.env['IMAGE_PULL_AUTH']
  return given
}
