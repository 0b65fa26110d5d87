// SPDX-License-Identifier: Apache-2.0

// Package agent is the device side: identity, messages, commands, updates and the wipe, on a directory of plain files.
//
// One call of Run is one power cycle. Everything that must outlive it stands in the state directory (mode 0700):
//
//	idevid.key idevid.pem chain.pem    the certificate of birth; the key never leaves the device
//	ldevid.pem next.key next.pem       key and certificate in service, and the pair that is about to replace them
//	unit.json config.json commands.json
//	root.json                          the manufacturer's update root that is trusted now
//	boot.0 boot.1                      the boot record, two copies with sequence and checksum
//	slot-a slot-b slot-a.json …        two images and what the signed metadata says of them
//	buffer/                            measurements and events that nobody has acknowledged yet
//
// Invariants:
//   - The intent is on disk before each effect, and every effect can be repeated.
//   - What the outcome of an update was is judged by looking (which slot runs, what its bytes hash to), never by memory.
//   - The floor rises at commit, after the new image proved healthy; until then the old slot stays bootable.
//   - Nothing that the server says makes the device install what update/trust refuses.
//   - A measurement or event leaves the buffer when the platform's PUBACK has arrived, or when the buffer is full and it is the oldest.
package agent
