// SPDX-License-Identifier: Apache-2.0

// Openthings-agent is the device side as a program: a unit is provisioned, taken off the line, and run.
//
//	openthings-agent provision -dir DIR -serial SERIAL [-keys tpm:/dev/tpmrm0] [-image FILE -version V -security-version N] > line-request.json
//	openthings-agent install -dir DIR < line-response.json
//	openthings-agent run -dir DIR -https HOST:8444 -mqtt HOST:8883 -product ID -revision NAME
//	openthings-agent notices [-dir DIR | -socket PATH] [-lang de,en] [-json]
//	openthings-agent notice shown|acknowledge -socket PATH ID
//	openthings-agent support [-dir DIR | -socket PATH] [-json]
//	openthings-agent check -root root.json -targets targets.json -image FILE [-at TIME]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp), errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil && ctx.Err() == nil:
		fmt.Fprintln(os.Stderr, "openthings-agent:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: openthings-agent provision|install|run|notices|notice|support|check, each with -h")

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, errUsage)
		return errUsage
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	if args[0] == "check" {
		return check(f, args[1:], out)
	}
	dir := f.String("dir", "/var/lib/openthings", "state directory")
	switch args[0] {
	case "provision":
		serial := f.String("serial", "", "serial number, as printed on the unit")
		image := f.String("image", "", "factory image for slot a")
		version := f.String("version", "factory", "version of the factory image")
		where := f.String("keys", "file", "where the unit's keys are made and stay: file, tpm:/dev/tpmrm0 or the pkcs11: URI of a token")
		security := f.Int64("security-version", 0, "security version of the factory image; it becomes the first floor")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return provision(*dir, *serial, *where, *image, *version, *security, out)
	case "install":
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		var r wire.LineResponse
		if err := json.NewDecoder(io.LimitReader(in, 1<<20)).Decode(&r); err != nil {
			return fmt.Errorf("the line station's answer on standard input: %w", err)
		}
		return agent.Install(*dir, r)
	case "notices":
		return notices(ctx, f, dir, args[1:], out)
	case "notice":
		return notice(ctx, f, args[1:])
	case "support":
		return support(ctx, f, dir, args[1:], out)
	case "run":
		c := agent.Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
		f.StringVar(&c.HTTPS, "https", "", "HTTPS device door, host:port")
		f.StringVar(&c.MQTT, "mqtt", "", "MQTT device door, host:port")
		f.StringVar(&c.Product, "product", "", "product id that this firmware is built for")
		f.StringVar(&c.Revision, "revision", "", "hardware revision that this firmware is built for")
		f.DurationVar(&c.Interval, "interval", 0, "between measurements (default 10s)")
		f.DurationVar(&c.HealthFor, "health-for", 0, "how long a new image may take to become healthy (default 5m)")
		f.Int64Var(&c.Buffer.Bytes, "buffer", 0, "bytes that may wait for the platform (default 4 MiB)")
		f.StringVar(&c.Socket, "socket", "", "path of a unix socket on which other programs hand in measurements and security events, and read notices")
		f.StringVar(&c.Label, "label", "", "label of the enrolment policy in the EST path")
		f.StringVar(&c.Keys, "keys", "", "where the unit's keys are (default: where provision made them)")
		f.Func("debug", "debug interface and the file that says whether it is open, `NAME=FILE`, for the baseline report; may be repeated", func(v string) error {
			name, file, ok := strings.Cut(v, "=")
			if !ok {
				return errors.New("use NAME=FILE")
			}
			if c.Probe.Debug == nil {
				c.Probe.Debug = map[string]string{}
			}
			c.Probe.Debug[name] = file
			return wire.CheckItem(name)
		})
		f.StringVar(&c.Probe.Credentials, "default-credentials", "", "program that prints each account which still has a factory password, for the baseline report")
		f.Func("default-hash", "password field of /etc/shadow that was ever shipped, for the baseline report; may be repeated", func(v string) error {
			c.Probe.DefaultHashes = append(c.Probe.DefaultHashes, v)
			return nil
		})
		health := f.String("health", "", "program that judges a new image: started with its path, exit 0 is healthy")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		c.Dir = *dir
		if *health != "" {
			c.Health = func(ctx context.Context, image string) error { return exec.CommandContext(ctx, *health, image).Run() }
		}
		return agent.Supervise(ctx, c)
	}
	fmt.Fprintln(os.Stderr, errUsage)
	return errUsage
}

func provision(dir, serial, where, image, version string, security int64, out io.Writer) error {
	csr, err := agent.ProvisionIn(dir, serial, where)
	if err != nil {
		return err
	}
	r := wire.LineRequest{Serial: serial, CSR: string(csr)}
	if image != "" {
		b, err := os.ReadFile(image)
		if err != nil {
			return err
		}
		if r.Firmware, err = agent.Flash(dir, b, version, security); err != nil {
			return err
		}
	}
	e := json.NewEncoder(out) // what the station posts to /d/1/line/devices
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
