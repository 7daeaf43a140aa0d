// A real virtual machine for a test: QEMU without acceleration (this machine's KVM runs no ordinary kernel), Debian's cloud kernel, an initramfs of busybox that
// runs one script and powers off. scripts/guest.mjs has made kernel and initramfs.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const GUEST = path.resolve(import.meta.dirname, '../../.cache/guest')
/** LIMIT: such a machine boots in 3 to 8 s; this bounds one that hangs. */
const BOOT_MS = 120_000

/** Whether scripts/guest.mjs has been run. */
export const guestIsThere = (): boolean => existsSync(path.join(GUEST, 'complete'))

export interface GuestOptions {
  /** vhost-user sockets by the tag that the guest mounts. */
  readonly shares?: Readonly<Record<string, string>>
  /** Image files that appear as /dev/vda, /dev/vdb ... */
  readonly disks?: readonly string[]
  /** Programs of this machine, with the libraries they need, at their own paths. */
  readonly programs?: readonly string[]
  readonly memoryMiB?: number
  readonly queues?: number
  readonly kernelArguments?: string
  /** Instead of power-off, `reboot` in the script starts the machine again. */
  readonly mayReboot?: boolean
}

export interface Guest extends AsyncDisposable {
  readonly child: ChildProcess
  /** Everything on the serial console so far. */
  readonly console: () => string
  /** Resolves when `text` has appeared on the console. */
  appeared(text: string): Promise<void>
  /** Writes to the console, which is the script's standard input. */
  type(text: string): void
  /** Resolves with the console when the machine has ended. Rejects when it does not. */
  readonly ended: Promise<string>
}

/** Boots a machine that runs `script` with busybox's shell. Its lines stand between kernel messages: print what is looked for behind a mark. */
export function bootGuest(script: string, { shares = {}, disks = [], programs = [], memoryMiB = 256, queues = 1, kernelArguments = '', mayReboot = false }: GuestOptions = {}): Guest {
  const directory = mkdtempSync(path.join(tmpdir(), 'nydus-guest-'))
  writeFileSync(path.join(directory, 'script'), script)
  const names = ['script', ...programs.flatMap((program) => copyProgram(directory, program))]
  const second = execFileSync('cpio', ['-o', '-H', 'newc', '--quiet', '-R', '0:0'], { cwd: directory, input: `${names.join('\n')}\n`, maxBuffer: 2 ** 28 })
  writeFileSync(path.join(directory, 'initramfs'), Buffer.concat([readFileSync(path.join(GUEST, 'initramfs')), second]))
  const devices = Object.entries(shares).flatMap(([tag, socket], i) => ['-chardev', `socket,id=c${i},path=${socket}`,
    '-device', `vhost-user-fs-pci,chardev=c${i},tag=${tag},queue-size=1024,num-request-queues=${queues}`])
  const drives = disks.flatMap((file, i) => ['-drive', `if=none,id=d${i},file=${file},format=raw,readonly=on`, '-device', `virtio-blk-pci,drive=d${i}`])
  const child = spawn('qemu-system-x86_64', [
    '-M', 'q35,memory-backend=mem', '-accel', 'tcg', '-m', `${memoryMiB}`, '-object', `memory-backend-memfd,id=mem,size=${memoryMiB}M,share=on`, '-smp', '1',
    '-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', ...(mayReboot ? [] : ['-no-reboot']),
    '-kernel', path.join(GUEST, 'vmlinux'), '-initrd', path.join(directory, 'initramfs'),
    '-append', `console=ttyS0 quiet panic=-1 ${kernelArguments}`, ...devices, ...drives,
  ], { stdio: ['pipe', 'pipe', 'pipe'] })
  let text = ''
  const waiting = new Set<() => void>()
  const hear = (part: string): void => {
    text += part
    for (const look of waiting) look()
  }
  child.stdout.setEncoding('latin1').on('data', hear)
  child.stderr.setEncoding('latin1').on('data', hear)
  const kill = setTimeout(() => child.kill('SIGKILL'), BOOT_MS)
  const closed = new Promise<string>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status, signal) => {
      clearTimeout(kill)
      for (const look of waiting) look()
      rmSync(directory, { recursive: true, force: true })
      if (status === 0) resolve(text)
      else reject(new Error(`QEMU ended with ${signal ?? status}:\n${text.slice(-4000)}`))
    })
  })
  closed.catch(() => {}) // whoever awaits `ended` hears of it
  return {
    child,
    console: () => text,
    appeared: (wanted) => new Promise((resolve, reject) => {
      const look = (): void => {
        if (text.includes(wanted)) resolve()
        else if (child.exitCode !== null || child.signalCode !== null) reject(new Error(`the machine ended without "${wanted}":\n${text.slice(-4000)}`))
        else return
        waiting.delete(look)
      }
      waiting.add(look)
      look()
    }),
    type: (line) => void child.stdin.write(line),
    ended: closed,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await closed.catch(() => {})
    },
  }
}

/** Copies `program` and its libraries below `directory`; returns the names of what is new, directories first. */
function copyProgram(directory: string, program: string): string[] {
  const files = [program, ...execFileSync('ldd', [program], { encoding: 'utf8' }).match(/\/[^ )]+/g) ?? []]
  return files.flatMap((file) => {
    const parents = path.dirname(file).split('/').filter(Boolean).map((_, i, parts) => parts.slice(0, i + 1).join('/'))
    mkdirSync(path.join(directory, path.dirname(file)), { recursive: true })
    copyFileSync(file, path.join(directory, file))
    chmodSync(path.join(directory, file), 0o755)
    return [...parents, file.slice(1)]
  })
}
