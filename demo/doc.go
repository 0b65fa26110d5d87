// SPDX-License-Identifier: AGPL-3.0-only

// Package demo takes real agents through the whole life of a device, from outside: the platform is a child process,
// reached through sockets only, and each agent has its own key and its own connections.
//
// Every ok is the result of a check that could have failed: a refused connection, a value read back, a proof verified
// without the platform. A step that fails ends the turn; the steps after it are reported as not run.
package demo
