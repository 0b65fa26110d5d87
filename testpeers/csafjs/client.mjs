// SPDX-License-Identifier: AGPL-3.0-only

// The CSAF validator of Secvisogram as the service that csaf_checker and csaf_validator ask (--validator). It says its
// port in the first line of its output and ends with its input. The preset "mandatory" is the schema and section 6.1,
// "full" adds 6.2 and 6.3 without the tests that need the network (6.3.6, 6.3.7) or a spelling program (6.3.8).
import { createServer } from 'node:http'
import validate from '@secvisogram/csaf-validator-lib/validate.js'
import { csaf_2_0_strict } from '@secvisogram/csaf-validator-lib/schemaTests.js'
import * as mandatory from '@secvisogram/csaf-validator-lib/mandatoryTests.js'
import * as optional from '@secvisogram/csaf-validator-lib/optionalTests.js'
import * as informative from '@secvisogram/csaf-validator-lib/informativeTests.js'

const elsewhere = ['informativeTest_6_3_6', 'informativeTest_6_3_7', 'informativeTest_6_3_8']
const presets = { mandatory: [csaf_2_0_strict, ...Object.values(mandatory)] }
presets.full = [...presets.mandatory, ...[optional, informative].flatMap(all => Object.values(all))].filter(test => !elsewhere.includes(test.name))

const server = createServer(async (request, response) => {
  try {
    let body = ''
    for await (const part of request.setEncoding('utf8')) body += part
    const { tests, document } = JSON.parse(body)
    const result = await validate(tests.flatMap(({ name }) => presets[name]), document)
    response.setHeader('Content-Type', 'application/json').end(JSON.stringify(result))
  } catch (error) {
    response.writeHead(500).end(String(error))
  }
})
server.listen(0, '127.0.0.1', () => process.stdout.write(server.address().port + '\n'))
process.stdin.on('end', () => process.exit(0)).resume()
