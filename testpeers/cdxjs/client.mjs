// SPDX-License-Identifier: AGPL-3.0-only

// The schemas of CycloneDX as the project's own library holds them. Each line of its input is {"version", "document"}; each
// line of its output is what is wrong with that document, or null. It ends with its input.
import { createInterface } from 'node:readline'
import { Spec, Validation } from '@cyclonedx/cyclonedx-library'

const validators = {}
for await (const line of createInterface({ input: process.stdin })) {
  const { version, document } = JSON.parse(line)
  let wrong
  try {
    validators[version] ??= new Validation.JsonStrictValidator(Spec.Version[`v${version.replace('.', 'dot')}`])
    wrong = await validators[version].validate(document)
  } catch (error) {
    wrong = String(error)
  }
  process.stdout.write(JSON.stringify(wrong) + '\n')
}
