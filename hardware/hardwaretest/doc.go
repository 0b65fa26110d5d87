// SPDX-License-Identifier: Apache-2.0

// Package hardwaretest starts the hardware of tests: TPMs by swtpm and a token by SoftHSM2, each for one test alone.
// A missing peer fails the test and says which Debian package brings it.
package hardwaretest
