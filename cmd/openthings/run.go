// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/demo"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// defaultData is where a platform keeps its data unless told otherwise.
func defaultData() string {
	if d := os.Getenv("OPENTHINGS_DATA_DIR"); d != "" {
		return d
	}
	if d, err := os.UserHomeDir(); err == nil {
		return filepath.Join(d, ".local", "share", "openthings")
	}
	return "openthings-data"
}

// idleHeap is memory that is never touched, and so never taken from the machine. The garbage collector counts it: it waits
// until as much again was allocated. A busy platform holds about 20 MB, which were marked anew dozens of times a second,
// for a ninth of its CPU time; GOGC=300 would do the same, but asks for four times the memory where 10,000 devices are
// connected.
const idleHeap = 32 << 20

func upCommand() *cobra.Command {
	var cfg app.Config
	var asJSON bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Run the platform",
		Long:  "Run the platform: people and programs on 8443, devices over HTTPS on 8444 and MQTT on 8883, all over TLS 1.3,\nand over CoAP on UDP 5684 (DTLS 1.2). The first start makes the keys and prints a one-time setup link.",
		Example: `  openthings up
  openthings up --data /var/lib/openthings --name things.example.com --listen :8443 --device-listen :8444 --mqtt-listen :8883 --coap-listen :5684
  openthings up --database postgres://openthings@db.example.com/openthings`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := filepath.Abs(cfg.Data)
			if err != nil {
				return err
			}
			cfg.Data = data
			if cfg.Keys != "" {
				if cfg.Keys, err = filepath.Abs(cfg.Keys); err != nil {
					return err
				}
			}
			cfg.Log = logger(c)
			if cfg.Self, err = os.Executable(); err != nil {
				return err
			}
			if cfg.SBOMGrade != "" && !slices.Contains(sbom.Grades, cfg.SBOMGrade) {
				return problem.Invalid("there is no grade %q", cfg.SBOMGrade).At("--sbom-grade").Hint("choose %s", problem.Or(sbom.Grades))
			}
			cfg.Ready = func(i app.Info) {
				if asJSON {
					printJSON(c.OutOrStdout(), i) //nolint:errcheck // nobody to tell
					return
				}
				w := c.OutOrStdout()
				fmt.Fprintf(w, "OpenThings is up.\n\n  console   %s\n  devices   %s (EST, HTTPS)\n  MQTT      %s\n", i.URL, i.Devices, i.MQTT)
				if i.CoAP != "" {
					fmt.Fprintf(w, "  CoAP      %s\n", i.CoAP)
				}
				fmt.Fprintf(w, "  data      %s\n  CA        %s\n            SHA-256 %s\n", cfg.Data, i.CA, i.Fingerprint)
				if i.Setup != "" {
					fmt.Fprintf(w, "\nNobody has joined yet. Open this link within 15 minutes; it works once:\n\n  %s\n\n", i.Setup)
				}
			}
			defer runtime.KeepAlive(make([]byte, idleHeap))
			return app.Run(c.Context(), cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Data, "data", defaultData(), "folder for everything the platform keeps ($OPENTHINGS_DATA_DIR)")
	f.StringVar(&cfg.Keys, "keys", "", "folder of the platform's keys, which nodes on one database share; default: keys in --data")
	f.StringVar(&cfg.Listen, "listen", env("OPENTHINGS_LISTEN", "localhost:8443"), "people and programs ($OPENTHINGS_LISTEN)")
	f.StringVar(&cfg.DeviceListen, "device-listen", env("OPENTHINGS_DEVICE_LISTEN", "localhost:8444"), "devices over HTTPS, and over MQTT if their ALPN says mqtt ($OPENTHINGS_DEVICE_LISTEN)")
	f.StringVar(&cfg.Handover, "mqtt-handover", env("OPENTHINGS_MQTT_HANDOVER", ""), "host:port of the MQTT door that devices are sent to when this platform stops ($OPENTHINGS_MQTT_HANDOVER)")
	f.StringVar(&cfg.MQTTListen, "mqtt-listen", env("OPENTHINGS_MQTT_LISTEN", "localhost:8883"), "devices over MQTT ($OPENTHINGS_MQTT_LISTEN)")
	f.StringVar(&cfg.CoAPListen, "coap-listen", env("OPENTHINGS_COAP_LISTEN", "localhost:5684"), "devices over CoAP, UDP; empty: none ($OPENTHINGS_COAP_LISTEN)")
	f.StringVar(&cfg.HealthListen, "health-listen", env("OPENTHINGS_HEALTH_LISTEN", "localhost:8480"), "health, loopback only, without TLS; empty: none ($OPENTHINGS_HEALTH_LISTEN)")
	f.StringVar(&cfg.TLSCert, "tls-cert", "", "certificate for --listen (PEM); default: from the platform's own CA")
	f.StringVar(&cfg.TLSKey, "tls-key", "", "its key (PEM)")
	f.StringVar(&cfg.Database, "database", "", "postgres://… instead of SQLite in the data folder")
	f.StringVar(&cfg.CAKeys, "ca-keys", env("OPENTHINGS_CA_KEYS", "sealed"), "where keys of new authorities are made: sealed (files), tpm:/dev/tpmrm0 or pkcs11:token=…?module-path=…&pin-source=… ($OPENTHINGS_CA_KEYS)")
	issuerFlags(f, &cfg)
	intakeFlags(f, &cfg)
	doorFlags(f, &cfg)
	f.StringSliceVar(&cfg.Names, "name", nil, "further host names that the server certificates are valid for")
	f.BoolVar(&cfg.PrivateHooks, "private-hooks", false, "let hooks of tenants reach loopback and private addresses")
	feedFlags(f, &cfg)
	f.StringVar((*string)(&cfg.SBOMGrade), "sbom-grade", "", "what a bill of materials must reach before its release may be published: usable or complete, say; default: any")
	mailFlags(f, &cfg)
	f.BoolVar(&asJSON, "json", false, "print where it is reached as JSON")
	f.StringVar(&cfg.PublicURL, "public-url", "", "where others reach --listen, for revocation lists and OCSP named in certificates; default: the first --name")
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return c
}

// logger writes to standard error: text on a terminal, JSON elsewhere.
func logger(c *cobra.Command) *slog.Logger {
	if f, ok := c.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	return slog.New(slog.NewJSONHandler(c.ErrOrStderr(), nil))
}

func demoCommand() *cobra.Command {
	var cfg demo.Config
	c := &cobra.Command{
		Use:   "demo",
		Short: "Take real agents through the whole life of a device",
		Long:  "Start a platform of its own in a temporary folder and take real agents through the whole life of a device.\nEvery ok was verified from outside. It keeps running for the console unless --once.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Out, cfg.Progress = c.OutOrStdout(), c.ErrOrStderr()
			var err error
			if cfg.Binary, err = os.Executable(); err != nil {
				return err
			}
			ok, err := demo.Run(c.Context(), cfg)
			if err == nil && !ok {
				return exitCode(1)
			}
			return err
		},
	}
	f := c.Flags()
	f.IntVar(&cfg.Devices, "devices", 25, "how many agents")
	f.BoolVar(&cfg.Once, "once", false, "end after one turn")
	f.BoolVar(&cfg.JSON, "json", false, "print the steps as one JSON object")
	f.StringVar(&cfg.Database, "database", "", "postgres://… instead of SQLite")
	return c
}

func tokenCommand() *cobra.Command {
	c := parent("token", "API tokens, from the machine that the platform runs on")
	var data, tenantName, role string
	var ttl time.Duration
	var create, asJSON bool
	make := &cobra.Command{
		Use: "create", Short: "Make a token; it is printed once", Args: cobra.NoArgs,
		Long: "Make a token; it is printed once. It goes through a socket in the data folder that only the platform's own user can\n" +
			"open, so whoever may do this could read the data anyway.",
		Example: `  export OPENTHINGS_TOKEN=$(openthings token create --tenant 'Lumen GmbH' --role fleet-operator --ttl 8h)`,
		RunE: func(c *cobra.Command, _ []string) error {
			abs, err := filepath.Abs(data)
			if err != nil {
				return err
			}
			var t app.Token
			if err := app.Host(c.Context(), abs, "/token", map[string]any{"tenant": tenantName, "role": role, "ttl_seconds": int64(ttl / time.Second), "create": create}, &t); err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), t)
			}
			fmt.Fprintf(c.ErrOrStderr(), "role %s in %s until %s; the token is not shown again:\n", role, t.Tenant, t.Expires)
			fmt.Fprintln(c.OutOrStdout(), t.Token)
			return nil
		},
	}
	f := make.Flags()
	f.StringVar(&data, "data", defaultData(), "the platform's data folder ($OPENTHINGS_DATA_DIR)")
	f.StringVar(&tenantName, "tenant", "", "the tenant's name")
	f.StringVar(&role, "role", "", "one of the roles of openthings roles")
	f.DurationVar(&ttl, "ttl", 24*time.Hour, "how long it is valid")
	f.BoolVar(&create, "create", false, "make the tenant if there is none of this name")
	f.BoolVar(&asJSON, "json", false, "print it as JSON")
	cobra.CheckErr(make.MarkFlagRequired("tenant"))
	cobra.CheckErr(make.MarkFlagRequired("role"))
	c.AddCommand(make)
	return c
}
