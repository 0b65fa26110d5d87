// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity/openbao"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// Config says where the platform keeps its data and where it listens.
type Config struct {
	Data string // absolute path of the data folder; made with mode 0700
	// Keys is the folder of the platform's keys; empty: keys in Data. Nodes on one database share it: what one seals the
	// others open.
	Keys string
	// Addresses as host:port; port 0 takes a free one.
	Listen       string // people and programs
	DeviceListen string // devices over HTTPS
	MQTTListen   string // devices over MQTT
	CoAPListen   string // devices over CoAP, UDP; empty: none
	Handover     string // host:port of the MQTT door to which devices are sent when this platform stops; empty: none
	HealthListen string // loopback only, without TLS; empty: none
	// TLSCert and TLSKey are PEM files for Listen; empty: a certificate of the platform's own CA.
	TLSCert, TLSKey string
	// Database is postgres://…; empty: SQLite in Data.
	Database string
	// PublicURL is where others reach Listen. Device certificates name their revocation lists and the OCSP responder
	// there, for ever. Default: the first of Names with the port of Listen; without a name certificates name nothing.
	PublicURL string
	// Names are further host names that the platform's own certificates are valid for. The first is the one that
	// passkeys bind to; default localhost.
	Names []string
	// CAKeys is where the keys of new issuing authorities are made: "sealed" (also when empty), tpm:… or pkcs11:…
	// (identity/keystore).
	CAKeys string
	// Issuer says who signs for devices: IssuerEmbedded (also when empty) or IssuerOpenBao.
	Issuer  string
	OpenBao openbao.Config // for IssuerOpenBao; its Clock and Log are the platform's
	// Doors bounds what clients can make the device doors hold and do; zero fields take their defaults.
	Doors gateway.Limits
	// Device and Tenant are how much one device, and all devices of a tenant, may send; zero fields: gateway.Limits.
	Device, Tenant gateway.Quota
	// Reserve is how many MB of the disk are kept free from what devices say; 0: none.
	Reserve int64
	// PrivateHooks lets hooks of tenants reach loopback and private addresses.
	PrivateHooks bool
	// Feeds is the folder that sources of vulnerability records of kind file lie in; empty: feeds in Data.
	Feeds string
	// PrivateFeeds lets sources of vulnerability records reach loopback and private addresses.
	PrivateFeeds bool
	Mail         Mail
	Log          *slog.Logger
	Clock        clock.Clock
	// Self is the file of the running program, whose bill of materials is watched as product number one; empty: nothing is.
	Self string
	// SBOMGrade is what a bill of materials must reach before its release may be published; empty: any.
	SBOMGrade sbom.Grade
	// Ready is called once everything is served.
	Ready func(Info)
}

// Run runs the platform until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if err := checkFolder(cfg.Data); err != nil {
		return err
	}
	if _, err := elsewhere(cfg.Handover, false); err != nil {
		return err
	}
	host, err := listenHost(cfg.Data)
	if err != nil {
		return fmt.Errorf("host socket: %w", err)
	}
	defer host.Close()
	doors, err := listen(cfg)
	if err != nil {
		return err
	}
	defer doors.close()
	cfg.PublicURL = publicURL(cfg, doors)
	cfg.Names = hostNames(cfg)
	h, err := open(ctx, cfg, doors.origins(cfg.Names))
	if err != nil {
		return err
	}
	err = h.serve(ctx, doors, host)
	return errors.Join(err, h.close())
}

// checkFolder makes the data folder; one that others can read is refused, since it holds the keys.
func checkFolder(path string) error {
	if !filepath.IsAbs(path) {
		return problem.Invalid("the data folder %q is not an absolute path", path)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return problem.Invalid("the data folder cannot be made").Because(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return problem.Invalid("the data folder %s can be read by others, and it holds keys", path).Hint("chmod 700 %s", path)
	}
	return nil
}

// doors are the listeners, bound before anything else so that a taken port is said at once.
type doors struct {
	console, devices, mqtt, health net.Listener
	coap                           *net.UDPConn
}

func listen(cfg Config) (d *doors, err error) {
	d = &doors{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, l := range []struct {
		flag, addr string
		into       *net.Listener
	}{
		{"--listen", cfg.Listen, &d.console}, {"--device-listen", cfg.DeviceListen, &d.devices},
		{"--mqtt-listen", cfg.MQTTListen, &d.mqtt}, {"--health-listen", cfg.HealthListen, &d.health},
	} {
		if l.addr == "" && l.flag == "--health-listen" {
			continue
		}
		if *l.into, err = net.Listen("tcp", l.addr); err != nil {
			return d, problem.Unavailable("%s %s cannot be opened", l.flag, l.addr).Hint("is another program listening there?").Because(err)
		}
	}
	if cfg.CoAPListen != "" {
		at, err := net.ResolveUDPAddr("udp", cfg.CoAPListen)
		if err == nil {
			d.coap, err = net.ListenUDP("udp", at)
		}
		if err != nil {
			return d, problem.Unavailable("--coap-listen %s cannot be opened", cfg.CoAPListen).Hint("is another program listening there?").Because(err)
		}
	}
	if d.health != nil && !d.health.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return d, problem.Forbidden("app.health-loopback", "health speaks without TLS and may listen on loopback only, not on %s", cfg.HealthListen)
	}
	return d, nil
}

func (d *doors) close() {
	for _, l := range []net.Listener{d.console, d.devices, d.mqtt, d.health} {
		if l != nil {
			l.Close()
		}
	}
	if d.coap != nil {
		d.coap.Close()
	}
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// origins are the addresses that people open, the one that passkeys bind to first.
func (d *doors) origins(names []string) []string {
	var out []string
	for _, n := range names {
		if net.ParseIP(n) == nil { // an IP address cannot carry passkeys
			out = append(out, origin(n, port(d.console)))
		}
	}
	return out
}

func origin(name string, port int) string {
	if port == 443 {
		return "https://" + name
	}
	return fmt.Sprintf("https://%s:%d", name, port)
}

// hostNames are what the server certificates are valid for: the configured names first, then where it listens.
func hostNames(cfg Config) []string {
	names := slices.Clone(cfg.Names)
	for _, addr := range []string{cfg.Listen, cfg.DeviceListen, cfg.MQTTListen, cmp.Or(cfg.CoAPListen, cfg.MQTTListen)} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || host == "" || (ip != nil && ip.IsUnspecified()) {
			host, _ = os.Hostname()
		}
		names = append(names, host)
	}
	names = append(names, "localhost", "127.0.0.1", "::1")
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	// Without a configured name a passkey binds to localhost, which every browser treats as secure.
	if len(cfg.Names) == 0 {
		out = slices.Insert(slices.DeleteFunc(out, func(n string) bool { return n == "localhost" }), 0, "localhost")
	}
	return out
}

// serve opens the doors and works until ctx ends, then closes them in order.
func (h *house) serve(ctx context.Context, d *doors, host net.Listener) error {
	consoleTLS := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: h.certificate, NextProtos: []string{"h2", "http/1.1"}}
	if h.cfg.TLSCert != "" {
		own, err := tls.LoadX509KeyPair(h.cfg.TLSCert, h.cfg.TLSKey)
		if err != nil {
			return problem.Invalid("--tls-cert and --tls-key cannot be used").Because(err)
		}
		consoleTLS.GetCertificate, consoleTLS.Certificates = nil, []tls.Certificate{own}
	}
	info, err := h.info(ctx, d)
	if err != nil {
		return err
	}

	// Three circles: the doors end first, then the work behind them, then the log.
	doorCtx, closeDoors := context.WithCancel(context.WithoutCancel(ctx))
	workCtx, endWork := context.WithCancel(context.WithoutCancel(ctx))
	logCtx, endLog := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoors()
	defer endWork()
	defer endLog()
	group, stopped := errgroup.WithContext(ctx)
	var work, doorsGroup, logGroup sync.WaitGroup
	start := func(g *sync.WaitGroup, name string, run func() error) {
		g.Add(1)
		group.Go(func() error {
			defer g.Done()
			if err := run(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	start(&logGroup, "audit log", func() error { return h.audit.Run(logCtx) })
	for _, w := range h.work() {
		start(&work, w.name, func() error { return w.until(workCtx) })
	}
	start(&doorsGroup, "host socket", func() error { return serveHost(doorCtx, host, h.host(), h.cfg.Log) })
	start(&doorsGroup, "console", func() error { return h.serveHTTP(doorCtx, tls.NewListener(d.console, consoleTLS), h.web()) })
	start(&doorsGroup, "device HTTPS", func() error { return h.gateway.ServeHTTPS(doorCtx, d.devices) })
	start(&doorsGroup, "MQTT", func() error { return h.gateway.ServeMQTT(doorCtx, d.mqtt) })
	if d.coap != nil {
		start(&doorsGroup, "CoAP", func() error { return h.gateway.ServeCoAP(doorCtx, d.coap) })
	}
	if d.health != nil {
		start(&doorsGroup, "health", func() error { return h.serveHTTP(doorCtx, d.health, h.health()) })
	}
	if h.cfg.Ready != nil {
		h.cfg.Ready(info)
	}
	<-stopped.Done()
	h.cfg.Log.Info("stopping")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	to, err := elsewhere(h.cfg.Handover, false)
	if err != nil {
		return err // Run has looked at it
	}
	if err := h.gateway.DrainTo(drain, to); err != nil {
		h.cfg.Log.Warn("the device doors did not drain", slog.Any("error", err))
	}
	closeDoors()
	doorsGroup.Wait()
	endWork()
	work.Wait()
	if err := h.audit.Wait(drain); err != nil {
		h.cfg.Log.Warn("the log was not sequenced to its end; the next start goes on", slog.Any("error", err))
	}
	endLog()
	logGroup.Wait()
	return group.Wait()
}

// serveHTTP serves until ctx ends; streams end with it.
func (h *house) serveHTTP(ctx context.Context, l net.Listener, handler http.Handler) error {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(h.cfg.Log.Handler(), slog.LevelDebug), // handshakes that fail are the peers' business
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// info says where the platform is reached, and writes what clients pin: the CA and the log key.
func (h *house) info(ctx context.Context, d *doors) (Info, error) {
	roots := h.identity.Roots()
	block, _ := pem.Decode(roots)
	if block == nil {
		return Info{}, errors.New("the root certificate cannot be read")
	}
	ca := filepath.Join(h.cfg.Data, "ca.pem")
	if err := os.WriteFile(ca, roots, 0o644); err != nil {
		return Info{}, err
	}
	if err := os.WriteFile(filepath.Join(h.cfg.Data, LogKeyFile), []byte(h.audit.VerifierKey()+"\n"), 0o644); err != nil {
		return Info{}, err
	}
	name := h.cfg.Names[0]
	sum := sha256.Sum256(block.Bytes)
	i := Info{
		URL: origin(name, port(d.console)), Devices: origin(name, port(d.devices)), MQTT: fmt.Sprintf("%s:%d", name, port(d.mqtt)),
		CA: ca, Fingerprint: hex.EncodeToString(sum[:]), LogKey: h.audit.VerifierKey(),
	}
	if d.coap != nil {
		i.CoAP = fmt.Sprintf("coaps://%s:%d", name, d.coap.LocalAddr().(*net.UDPAddr).Port)
	}
	if d.health != nil {
		i.Health = "http://" + d.health.Addr().String()
	}
	path, err := h.tenant.SetupLink(ctx)
	switch {
	case err == nil:
		i.Setup = i.URL + path
	case !problem.Is(err, problem.KindConflict):
		return Info{}, err
	}
	return i, nil
}
