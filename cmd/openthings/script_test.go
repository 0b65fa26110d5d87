// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/demo"
	"github.com/openthings-platform/openthings/tenant"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"openthings": main})
}

// The stories under testdata/script run the real binary against real clients (curl, openssl, mosquitto) and are the
// documentation of each. Beside testscript's own commands they use those of this file.
func TestScript(t *testing.T) {
	for _, name := range []string{"curl", "openssl", "jq", "gpg", "unzip", "mosquitto_pub", "mosquitto_sub"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is needed: scripts/deps.sh test installs it", name)
		}
	}
	others, repo := build(t, "openthings-verify", "openthings-agent"), repository(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join(repo, "testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"platform":   startPlatform,
			"receiver":   receiver,
			"mirror":     serveMirror,
			"token":      token,
			"json":       jsonHas,
			"setenv":     setFromStdout,
			"now":        now,
			"eventually": eventually,
			"flip":       flip,
			"code":       code,
			"runbook":    runbook,
			"readme":     readme,
			"login":      login,
		},
		Setup: func(e *testscript.Env) error {
			run := &started{}
			e.Values[startedKey{}] = run
			e.Defer(run.stop)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("REPO", repo) // for the demo's firmware and feed
			e.Setenv("PATH", e.Getenv("PATH")+string(os.PathListSeparator)+others)
			return nil
		},
	})
}

// repository is the root of this repository.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// build makes the named commands of this repository and returns their folder.
func build(t *testing.T, commands ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-trimpath", "-o", dir + "/"}
	for _, c := range commands {
		args = append(args, "../"+c)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return dir
}

// started holds the platform that a story runs, so that it can stop it, and the people who have joined.
type started struct {
	cmd    *exec.Cmd
	people map[string]*api.Client
}

type startedKey struct{} // of the story's *started

// stop ends the platform in order.
func (s *started) stop() {
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		s.cmd.Wait()                          //nolint:errcheck // it was told to end
		s.cmd = nil
	}
}

// platform ROLE [FLAG...] starts "openthings up" on free ports with its data in $WORK/data, makes a token of the role given, and
// sets OPENTHINGS_URL, OPENTHINGS_CA, OPENTHINGS_TOKEN, OPENTHINGS_DATA_DIR, CONSOLE (host:port), DEVICES and COAP (URLs),
// MQTT_HOST, MQTT_PORT, HEALTH (URL), LOG_KEY and SETUP. "platform stop" ends it in order and waits for its end,
// "platform kill" does what a power cut does to a process.
func startPlatform(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: platform ROLE|stop|kill [FLAG...]")
	}
	run := ts.Value(startedKey{}).(*started)
	if args[0] == "kill" && run.cmd != nil {
		run.cmd.Process.Kill() //nolint:errcheck // it may have ended
	}
	run.stop()
	if args[0] == "stop" || args[0] == "kill" {
		return
	}
	data := ts.MkAbs("data")
	// testscript puts its commands first on the PATH.
	bin := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "openthings")
	cmd := exec.Command(bin, "up", "--data", data, "--listen", "localhost:0", "--device-listen", "localhost:0", "--mqtt-listen", "localhost:0", "--coap-listen", "localhost:0", "--health-listen", "localhost:0", "--json")
	cmd.Args = append(cmd.Args, args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	run.cmd = cmd
	var info app.Info
	if err := json.NewDecoder(out).Decode(&info); err != nil {
		run.stop()
		ts.Fatalf("the platform did not start: %v\n%s", err, stderr.String())
	}
	host, port, err := net.SplitHostPort(info.MQTT)
	ts.Check(err)
	for k, v := range map[string]string{
		"OPENTHINGS_URL": info.URL, "OPENTHINGS_CA": info.CA, "OPENTHINGS_DATA_DIR": data, "CONSOLE": strings.TrimPrefix(info.URL, "https://"),
		"DEVICES": info.Devices, "COAP": info.CoAP, "MQTT_HOST": host, "MQTT_PORT": port, "HEALTH": info.Health, "LOG_KEY": info.LogKey, "SETUP": info.Setup,
	} {
		ts.Setenv(k, v)
	}
	token(ts, false, args[:1])
}

// token ROLE makes a token of that role for the tenant "Lumen GmbH" and sets OPENTHINGS_TOKEN.
func token(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: token ROLE")
	}
	var t app.Token
	ts.Check(app.Host(context.Background(), ts.MkAbs("data"), "/token", map[string]any{"tenant": "Lumen GmbH", "role": args[0], "create": true}, &t))
	ts.Setenv("OPENTHINGS_TOKEN", t.Token)
}

// login NAME ROLE makes "openthings login" the terminal of a person: it runs, the person types its code in the console, and
// the commands after it act as that person. Who is not there yet is invited with that role and joins with a passkey.
func login(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: login NAME ROLE")
	}
	name, ctx, run := args[0], context.Background(), ts.Value(startedKey{}).(*started)
	if run.people == nil {
		run.people = map[string]*api.Client{}
	}
	if run.people[name] == nil {
		var invited struct{ Path string }
		ts.Check(app.Host(ctx, ts.MkAbs("data"), "/invite", map[string]any{"tenant": "Lumen GmbH", "role": args[1], "name": name}, &invited))
		person, err := demo.Join(ctx, ts.Getenv("OPENTHINGS_URL"), ts.Getenv("OPENTHINGS_CA"), invited.Path, name, "")
		ts.Check(err)
		run.people[name] = person
	}
	ts.Setenv("OPENTHINGS_TOKEN", "")
	// testscript puts its commands first on the PATH.
	cmd := exec.Command(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "openthings"), "login")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "OPENTHINGS_URL=" + ts.Getenv("OPENTHINGS_URL"), "OPENTHINGS_CA=" + ts.Getenv("OPENTHINGS_CA")}
	said, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		ts.Fatalf("openthings login said %q: %v", line, err)
	}
	code := strings.TrimSpace(line[strings.LastIndex(line, " "):])
	ts.Check(run.people[name].Do(ctx, http.MethodPost, tenant.CommandLinePath, strings.NewReader(url.Values{"code": {code}}.Encode()), new([]byte),
		"Content-Type", "application/x-www-form-urlencoded"))
	ts.Check(cmd.Wait())
}

// receiver starts a program that takes webhooks on loopback and sets HOOK to its address. Of the newest one it writes
// hook.id, hook.at and hook.signature (the headers of Standard Webhooks) and hook.body.
func receiver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: receiver")
	}
	var mu sync.Mutex // one webhook's files at a time
	files := map[string]string{}
	for _, part := range []string{"id", "at", "signature", "body"} {
		files[part] = ts.MkAbs("hook." + part)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		for part, text := range map[string]string{"id": r.Header.Get("webhook-id"), "at": r.Header.Get("webhook-timestamp"),
			"signature": r.Header.Get("webhook-signature"), "body": string(body)} {
			err = errors.Join(err, os.WriteFile(files[part], []byte(text), 0o600))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	ts.Defer(srv.Close)
	ts.Setenv("HOOK", srv.URL)
}

// mirror DIR serves a folder of feeds with "openthings feed serve" and sets MIRROR to its address.
func serveMirror(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mirror DIR")
	}
	bin := filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "openthings")
	cmd := exec.Command(bin, "feed", "serve", ts.MkAbs(args[0]), "--listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		cmd.Wait()                          //nolint:errcheck // it was told to end
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	at := line[strings.LastIndex(line, " ")+1:]
	ts.Setenv("MIRROR", strings.TrimSpace(at))
}

// json FILE PATTERN... fails unless FILE ("stdout" for the last output) is JSON whose compact form matches each pattern.
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

// setenv NAME [PATTERN] sets NAME to the last standard output without the white space around it, or to the first group
// of PATTERN in it.
func setFromStdout(ts *testscript.TestScript, neg bool, args []string) {
	out := strings.TrimSpace(ts.ReadFile("stdout"))
	switch {
	case neg || len(args) < 1 || len(args) > 2:
		ts.Fatalf("usage: setenv NAME [PATTERN]")
	case len(args) == 2:
		re, err := regexp.Compile(args[1])
		ts.Check(err)
		m := re.FindStringSubmatch(out)
		if len(m) < 2 {
			ts.Fatalf("no match of %s in %s", args[1], out)
		}
		out = m[1]
	}
	ts.Setenv(args[0], out)
}

// now NAME sets NAME to this instant, as --as-of takes it.
func now(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: now NAME")
	}
	ts.Setenv(args[0], time.Now().UTC().Format(time.RFC3339Nano))
}

// eventually [PATTERN --] PROGRAM ARG... repeats the program until it succeeds (and its standard output matches), for
// at most a minute: what happens behind a receipt has no promised instant.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile("")
	if len(args) > 2 && args[1] == "--" {
		re, err := regexp.Compile(args[0])
		ts.Check(err)
		want, args = re, args[2:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually [PATTERN --] PROGRAM ARG...")
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("not within a minute: %v", err)
		}
	}
}

// code N PROGRAM ARG... fails unless the program ends with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s ended with exit code %d, want %s", args[1], got, args[0])
	}
}

// flip FROM TO copies a file with the lowest bit of its middle byte flipped.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FROM TO")
	}
	b := []byte(ts.ReadFile(args[0]))
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}
