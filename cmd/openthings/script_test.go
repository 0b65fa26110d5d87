// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openthings-platform/openthings/app"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"openthings": main})
}

// The stories under testdata/script run the real binary and are the documentation of each.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"platform": startPlatform,
			"json":     jsonHas,
			"setenv":   setFromStdout,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}

// platform starts "openthings up" on free ports with its data in $WORK/data, makes a token of the role given, and sets
// OPENTHINGS_URL, OPENTHINGS_CA, OPENTHINGS_TOKEN, DEVICES, MQTT, HEALTH, LOG_KEY and SETUP. "platform stop" ends it.
func startPlatform(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: platform ROLE")
	}
	exe, err := os.Executable()
	ts.Check(err)
	data := ts.MkAbs("data")
	// testscript puts the commands on PATH; this runs the same program.
	path := ts.Getenv("PATH")
	bin := filepath.Join(strings.Split(path, string(os.PathListSeparator))[0], "openthings")
	if _, err := os.Stat(bin); err != nil {
		bin = exe
	}
	cmd := exec.Command(bin, "up", "--data", data, "--listen", "localhost:0", "--device-listen", "localhost:0", "--mqtt-listen", "localhost:0", "--health-listen", "localhost:0", "--json")
	cmd.Env = append(os.Environ(), "PATH="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	var info app.Info
	decoded := make(chan error, 1)
	go func() { decoded <- json.NewDecoder(out).Decode(&info) }()
	if err := <-decoded; err != nil {
		cmd.Process.Kill() //nolint:errcheck // it has ended
		cmd.Wait()         //nolint:errcheck // its standard error says why
		ts.Fatalf("the platform did not start: %v\n%s", err, stderr.String())
	}
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		cmd.Wait()                          //nolint:errcheck // it was told to end
	})
	for k, v := range map[string]string{
		"OPENTHINGS_URL": info.URL, "OPENTHINGS_CA": info.CA, "DEVICES": info.Devices, "MQTT": info.MQTT,
		"MQTT_HOST": before(info.MQTT), "MQTT_PORT": after(info.MQTT), "HEALTH": info.Health, "LOG_KEY": info.LogKey, "SETUP": info.Setup,
	} {
		ts.Setenv(k, v)
	}
	var t app.Token
	ts.Check(hostToken(data, args[0], &t))
	ts.Setenv("OPENTHINGS_TOKEN", t.Token)
}

func before(hostport string) string { h, _, _ := strings.Cut(hostport, ":"); return h }
func after(hostport string) string  { _, p, _ := strings.Cut(hostport, ":"); return p }

// json FILE PATTERN… fails unless FILE ("stdout" for the last output) is JSON whose compact form matches each pattern.
func jsonHas(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: json FILE PATTERN...")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(ts.ReadFile(args[0]))); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	for _, p := range args[1:] {
		re, err := regexp.Compile(p)
		ts.Check(err)
		if re.Match(b.Bytes()) == neg {
			ts.Fatalf("%s: match of %q is %v in %s", args[0], p, !neg, b.String())
		}
	}
}

// setenv NAME PATTERN sets NAME to the first group of PATTERN in the last standard output.
func setFromStdout(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: setenv NAME PATTERN")
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("no match of %s in %s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}

func hostToken(data, role string, t *app.Token) error {
	return app.Host(context.Background(), data, "/token", map[string]any{"tenant": "Lumen GmbH", "role": role, "create": true}, t)
}
