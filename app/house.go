// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/openthings-platform/openthings/alarm"
	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/command"
	"github.com/openthings-platform/openthings/conform"
	"github.com/openthings-platform/openthings/conform/self"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/enroll"
	"github.com/openthings-platform/openthings/evidence"
	"github.com/openthings-platform/openthings/fleet"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/identity/keystore"
	"github.com/openthings-platform/openthings/notify"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond"
	"github.com/openthings-platform/openthings/respond/advisory"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/respond/inform"
	"github.com/openthings-platform/openthings/respond/oncall"
	"github.com/openthings-platform/openthings/respond/pgp"
	"github.com/openthings-platform/openthings/retire"
	"github.com/openthings-platform/openthings/retire/handover"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/telemetry"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/vuln"
	"github.com/openthings-platform/openthings/wire"
)

// house holds the rooms of one running platform, in the order of their floors.
type house struct {
	cfg     Config
	db      *store.DB // platform
	records *store.DB // telemetry: a file of its own on SQLite, so that an import never delays a receipt
	keys    *seal.Keys
	blobs   blob.Store

	audit     *audit.Log
	refusals  *audit.Refusals
	tenant    *tenant.Service
	notify    *notify.Service
	product   *product.Service
	identity  *identity.Service
	enroll    *enroll.Service
	fleet     *fleet.Service
	sessions  *fleet.Sessions
	telemetry *telemetry.Service
	command   *command.Service
	alarm     *alarm.Service
	sbom      *sbom.Service
	update    *update.Service
	vuln      *vuln.Service
	respond   *respond.Service
	inform    *inform.Service
	oncall    *oncall.Service
	desk      *disclosure.Service
	advisory  *advisory.Service
	conform   *conform.Service
	self      *self.Service
	retire    *retire.Service
	handover  *handover.Service
	evidence  *evidence.Service

	counts      counts
	metricsAuth string // the token of GET /metrics

	api     *api.API
	console *console.Console
	gateway *gateway.Gateway

	hardware   keystore.Store // of the keys of issuing authorities; nil: they lie in sealed files
	issuer     identity.Issuer
	issuerWork func(context.Context) error // keeps the token of a remote issuer alive; nil if there is none

	// certificate is the platform's own, for every door; renewed as it ages.
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// platformSchema lists the migrations of the platform's handle, telemetrySchema those of the other.
var (
	platformSchema = []store.Migrations{
		seal.Schema, api.Schema, audit.Schema, tenant.Schema, notify.Schema, product.Schema, identity.Schema, enroll.Schema, fleet.Schema, telemetry.CatalogueSchema, command.Schema, alarm.Schema,
		sbom.Schema, update.Schema, vuln.Schema, respond.Schema, inform.Schema, oncall.Schema, disclosure.Schema, conform.Schema, retire.Schema,
	}
	telemetrySchema = []store.Migrations{seal.Schema, telemetry.Schema}
)

// open opens the ground and builds the rooms from the ground up. What it opened is closed again if it fails.
func open(ctx context.Context, cfg Config, origins []string) (h *house, err error) {
	h = &house{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.keys, err = seal.Open(cmp.Or(cfg.Keys, filepath.Join(cfg.Data, "keys")), cfg.Clock); err != nil {
		return h, err
	}
	if h.blobs, err = blob.NewDir(filepath.Join(cfg.Data, "blobs")); err != nil {
		return h, err
	}
	at := func(name string) string {
		if cfg.Database != "" {
			return cfg.Database
		}
		return "sqlite://" + filepath.Join(cfg.Data, name)
	}
	if h.db, err = store.Open(ctx, store.Config{URL: at("platform.db"), Schema: platformSchema, Clock: cfg.Clock, Log: cfg.Log}); err != nil {
		return h, err
	}
	if h.records, err = store.Open(ctx, store.Config{URL: at("telemetry.db"), Schema: telemetrySchema, Clock: cfg.Clock, Log: cfg.Log}); err != nil {
		return h, err
	}
	if h.hardware, err = keystore.Open(cfg.CAKeys); err != nil {
		return h, err
	}
	if h.issuer, err = h.openIssuer(ctx, embedded.Config{Dir: filepath.Join(cfg.Data, "ca"), Keys: h.keys, Name: organization, Clock: cfg.Clock, Hardware: h.hardware}); err != nil {
		return h, err
	}
	sayUnprotected(ctx, h.issuer, cfg.Log)
	if err = h.build(origins); err != nil {
		return h, err
	}
	return h, h.mount()
}

// close closes the databases, whose accepted writes are done first, and the hardware of the keys.
func (h *house) close() error {
	var errs []error
	if h.hardware != nil {
		errs = append(errs, h.hardware.Close())
	}
	for _, db := range []*store.DB{h.db, h.records} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// build makes the rooms. A room that must reach a door gets the door's method, since the gateway is built between.
func (h *house) build(origins []string) (err error) {
	cfg := h.cfg
	journal := filepath.Join(cfg.Data, "journal")
	machine, _ := os.Hostname() // together with the folder it names this process, also after a restart
	if h.audit, err = audit.New(audit.Config{
		DB: h.db, Clock: cfg.Clock, Log: cfg.Log, Keys: h.keys, Origin: cfg.Names[0] + "/openthings", Journal: filepath.Join(journal, "checkpoints"), Holder: machine + ":" + cfg.Data,
		Require: func(ctx context.Context, verb string) (string, error) {
			t := tenant.MustTenant(ctx)
			return t, tenant.Require(ctx, tenant.Verb(verb), tenant.Thing{Tenant: t})
		},
	}); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	h.refusals = audit.NewRefusals(h.db, cfg.Clock, cfg.Log)
	if h.tenant, err = tenant.New(tenant.Config{DB: h.db, Clock: cfg.Clock, Log: cfg.Log, Origins: origins, Devices: h.devicesBySolution}); err != nil {
		return err
	}
	mailer, err := cfg.Mail.mailer()
	if err != nil {
		return err
	}
	h.notify = notify.New(notify.Config{DB: h.db, Keys: h.keys, Clock: cfg.Clock, Log: cfg.Log, PrivateHooks: cfg.PrivateHooks, Mailer: mailer, URL: cmp.Or(cfg.PublicURL, origins[0])})
	h.tellOutside()
	h.product = product.New(product.Config{DB: h.db, Clock: cfg.Clock, Sign: h.audit.Sign, Verify: h.signedText, Maker: h.manufacturer, URL: cmp.Or(cfg.PublicURL, origins[0]), Running: h.running, Checks: h.productChecks, Ends: h.ends()})
	if h.identity, err = identity.New(identity.Config{
		DB: h.db, Issuer: h.issuer, Clock: cfg.Clock, Log: cfg.Log, Journal: journal,
		Cut: func(id, reason string) int { return h.gateway.Cut(id, reason) },
		Lapsed: func(ctx context.Context, tenant, device string, ended time.Time) error {
			return h.enroll.MayLapse(ctx, tenant, device, ended)
		},
		CutGroup: h.cutGroup, Peers: h.peers, Stale: staleAfter, Sever: severAfter,
		PublicURL: cfg.PublicURL,
	}); err != nil {
		return err
	}
	h.fleet = fleet.New(fleet.Config{
		DB: h.db, Identity: h.identity, Product: h.product, Tenant: h.tenant, Clock: cfg.Clock, Log: cfg.Log,
		ReleaseName: func(ctx context.Context, t, release string) string {
			r, err := h.update.Get(ctx, t, release)
			if err != nil {
				return release
			}
			return r.Version
		},
		Name:     h.name,
		Batches:  func(ctx context.Context, t string) (map[string]string, error) { return h.enroll.BatchNames(ctx, t) },
		Stations: func(ctx context.Context, t string) (map[string]string, error) { return h.enroll.StationNames(ctx, t) },
		Keys:     h.keys, Send: h.send, Live: func(device string) bool { return h.gateway.Live(device) },
	})
	h.telemetry = telemetry.New(telemetry.Config{DB: h.records, Platform: h.db, Keys: h.keys, Identity: h.identity, Product: h.product, Tenants: h.tenant, Select: h.fleet.Select, Clock: cfg.Clock, Log: cfg.Log, Reserve: cfg.Reserve * 1e6})
	h.command = command.New(command.Config{DB: h.db, Keys: h.keys, Acting: h.acting, Identity: h.identity, Clock: cfg.Clock, Log: cfg.Log, Deliver: h.send,
		Live: func(device string) bool { return h.gateway.Live(device) }, Fleet: h.fleet, Product: h.product, Tenant: h.tenant})
	h.alarm = alarm.New(alarm.Config{DB: h.db, Identity: h.identity, Fleet: h.fleet, Notify: h.notify, Clock: cfg.Clock, Log: cfg.Log})
	if h.certificate, err = h.identity.ServerTLS(cfg.Names); err != nil {
		return err
	}
	h.sessions = fleet.NewSessions(fleet.SessionsConfig{
		DB: h.db, Keys: h.keys, Clock: cfg.Clock, Log: cfg.Log, Append: h.telemetry.Append,
		Supersede: func(device string, generation int64, resumed bool) { h.gateway.Supersede(device, generation, resumed) },
	})
	limits := cfg.Doors
	limits.Device, limits.Tenant = cfg.Device, cfg.Tenant
	h.gateway, err = gateway.New(gateway.Config{
		Sessions: h.sessions.Keeper(),
		Admit:    h.admit, Vouch: h.vouch, Introduce: h.introduce, Used: h.used, Spent: h.spent, TakenOver: h.takenOver, Refused: h.refused, Append: h.receive, Online: h.fleet.Online, Offline: h.fleet.Offline,
		Ready: func(p gateway.Peer) { h.command.Ready(p.Device); h.update.Ready(p); h.fleet.TwinReady(p.Device) },
		TLS:   &tls.Config{GetCertificate: h.certificate}, Clock: cfg.Clock, Log: cfg.Log,
		Limits: limits,
	})
	if err != nil {
		return err
	}
	h.sbom = sbom.New(sbom.Config{DB: h.db, Blobs: h.blobs, Clock: cfg.Clock, ProductOf: func(ctx context.Context, t, release string) (string, error) {
		return h.update.ProductOf(ctx, t, release)
	}})
	h.update = update.New(update.Config{
		DB: h.db, Blobs: h.blobs, Identity: h.identity, Product: h.product, SBOM: h.sbom, Fleet: h.fleet, Tenants: h.tenant, Clock: cfg.Clock, Log: cfg.Log,
		Send: h.send, Live: h.gateway.Live, SBOMGrade: cfg.SBOMGrade,
		Placing: func(tx *store.Tx, r update.Release) error {
			return h.conform.MayPlace(tx, r.Tenant, r.Product, r.ID)
		},
		VEX: func(doc []byte) (func(*store.Tx, string, string) error, error) { return h.vuln.WithRelease(doc) },
	})
	h.enroll = enroll.New(enroll.Config{
		DB: h.db, Identity: h.identity, Products: h.product, Tenants: h.tenant, Clock: cfg.Clock, Log: cfg.Log, TrustRoot: h.update.TrustRoot,
		Sign: h.audit.Sign, LogKey: h.audit.VerifierKey, Keys: h.keys, PrivateHooks: cfg.PrivateHooks,
	})
	h.vuln = vuln.New(vuln.Config{
		DB: h.db, Clock: cfg.Clock, Log: cfg.Log, SBOM: h.sbom, Fleet: h.fleet, Enroll: h.enroll, Update: h.update, RecordCheck: h.update.RecordCheck,
		FeedDir: cmp.Or(cfg.Feeds, filepath.Join(cfg.Data, "feeds")), FeedSpool: filepath.Join(cfg.Data, "fetched"), PrivateFeeds: cfg.PrivateFeeds,
		Release: func(ctx context.Context, t, id string) (vuln.Release, error) {
			r, err := h.update.Get(ctx, t, id)
			return vuln.Release{Product: r.Product, Version: r.Version, Image: r.Image}, err
		},
		Product: func(ctx context.Context, t, id string) error {
			_, err := h.product.Get(ctx, t, id)
			return err
		},
		ProductName: h.productName,
		Publisher: func(ctx context.Context, t string) (vuln.Publisher, error) {
			name, err := h.manufacturer(ctx, t)
			return vuln.Publisher{Name: name, Namespace: cmp.Or(cfg.PublicURL, origins[0])}, err
		},
	})
	h.respond = respond.New(respond.Config{DB: h.db, Products: h.product, Log: cfg.Log, Vuln: h.vuln, Manufacturer: h.manufacturer, Name: h.name, Keys: h.keys, Facts: h.caseFacts(), Rota: h.rota(), Anomaly: h.anomaly,
		Campaign: func(tx *store.Tx, t, id, campaign string) error { return h.inform.OfCase(tx, t, id, campaign) },
		Ready:    []func(context.Context, string) ([]respond.Ready, error){h.reporting}})
	h.inform = inform.New(inform.Config{DB: h.db, Keys: h.keys, Products: h.product, Cases: h.respond, Log: cfg.Log, Mailer: mailer, PrivateHooks: cfg.PrivateHooks, URL: cmp.Or(cfg.PublicURL, origins[0]),
		Maker: h.manufacturer, Vuln: h.vuln, Update: h.update, Fleet: h.fleet, Identity: h.identity, Command: h.command,
		Advisory: func(ctx context.Context, t, product, vulnerability string) (string, string, []byte, error) {
			return h.advisory.About(ctx, t, product, vulnerability)
		}})
	h.oncall = oncall.New(oncall.Config{DB: h.db, Notify: h.notify, People: h.members, Worth: h.worth(), Over: h.overNow, Eased: []string{respond.TopicDutyEnded, respond.TopicDecided}})
	h.desk = disclosure.New(disclosure.Config{DB: h.db, Keys: h.keys, Blobs: h.blobs, PGP: pgp.New(h.db, h.keys), Products: h.product, Respond: h.respond, Log: cfg.Log,
		URL: cmp.Or(cfg.PublicURL, origins[0]), Maker: h.manufacturer, Tenants: h.tenantIDs, Advisory: h.publicAdvisory,
		CSAF: func(ctx context.Context, t string) string { return h.advisory.Metadata(ctx, t) }})
	h.advisory = advisory.New(advisory.Config{DB: h.db, Products: h.product, Vuln: h.vuln, Cases: h.respond, Keys: pgp.New(h.db, h.keys),
		Manufacturer: h.manufacturer, Releases: h.publishedReleases, URL: cmp.Or(cfg.PublicURL, origins[0])})
	h.conform = conform.New(conform.Config{DB: h.db, Products: h.product, SBOM: h.sbom, Update: h.update, Clock: cfg.Clock, Log: cfg.Log,
		Tenants: h.tenantIDs})
	h.self = self.New(self.Config{Clock: cfg.Clock, Found: h.foundInOwn})
	h.retire = retire.New(retire.Config{
		DB: h.db, Identity: h.identity, Command: h.command, Telemetry: h.telemetry, Fleet: h.fleet, Keys: h.keys, Cut: h.gateway.Cut, Log: cfg.Log,
	})
	h.handover = handover.New(handover.Config{DB: h.db, Blobs: h.blobs, Products: h.product, Update: h.update, SBOM: h.sbom, Vuln: h.vuln, Advisories: h.advisory,
		Fleet: h.fleet, Telemetry: h.telemetry, Command: h.command, Alarm: h.alarm, Identity: h.identity, Maker: h.manufacturer, Sign: h.audit.Sign, LogKey: h.audit.VerifierKey})
	h.evidence = evidence.New(evidence.Config{
		DB: h.db, Audit: h.audit, Identity: h.identity, Clock: cfg.Clock, Log: cfg.Log, Sections: h.sections(), Related: h.related, Unit: h.unit, Runs: h.runs,
		Rooms: evidence.Rooms{Products: h.product, Cases: h.respond, Reports: h.desk, Conform: h.conform, Releases: h.releasesOfProduct, Informed: h.informedOf}, ProductsOf: h.productsOf(),
	})
	return nil
}

// mount registers routes, topics, pages and slots of every stage.
func (h *house) mount() error {
	h.telemetry.Watch(h.alarm.Watches, h.alarm.Observe)
	h.telemetry.Route("cmd/", h.command.Receive)
	h.telemetry.Route("state/", h.fleet.Reported)
	h.telemetry.Route("ota/", h.update.Status)
	h.telemetry.Route("inv", h.inventory)
	h.telemetry.Route(wire.TopicNotice, h.command.NoticeReported)
	for _, topic := range gateway.Uplinks() { // a message that nobody takes must not get a receipt
		if !h.telemetry.Takes(topic) {
			return fmt.Errorf("no stage takes what devices say on %s", topic)
		}
	}
	h.identity.TrustDoors(h.gateway)
	h.enroll.Doors(h.gateway)
	h.update.DeviceRoutes(h.gateway)
	h.gateway.Route("GET /d/1/support", gateway.LDevID, h.serveSupport)

	tokens, err := h.keys.Derive("api.page-token") // so that a page token outlives a restart
	if err != nil {
		return err
	}
	if h.metricsAuth, err = h.metricsToken(); err != nil {
		return err
	}
	h.api = api.New(api.Config{
		Title: "OpenThings", Version: "1", DB: h.db, Clock: h.cfg.Clock, Log: h.cfg.Log, TokenKey: tokens,
		Authenticate: h.tenant.Authenticate, Holds: tenant.Holds, Caller: tenant.Caller, Refused: h.refusedActor,
	})
	h.console = console.New(console.Config{
		Clock: h.cfg.Clock, Log: h.cfg.Log, SignIn: tenant.SignInPath, Authenticate: h.tenant.Authenticate, Holds: tenant.Holds, Visitor: tenant.Visitor, Name: h.name, Refused: h.refusedActor,
		Menu: []string{"Today", "Products", "Enrol", "Issuers", "Fleet", "Jobs", "Data", "Alarms", "Releases", "Vulnerabilities", "Cases", "Tell users", "Disclosure", "Advisories", "Evidence", "Law", "Access"},
	})
	for _, room := range []interface{ Routes(*api.API) }{
		h.tenant, h.audit, h.notify, h.product, h.identity, h.enroll, h.fleet, h.telemetry, h.command, h.alarm, h.sbom, h.update, h.vuln, h.respond, h.inform, h.oncall, h.desk, h.advisory, h.conform, h.retire, h.handover, h.evidence,
	} {
		room.Routes(h.api)
	}
	// An entry of the menu leads to the first page that names it: Releases to those of update, not to the bill of one of them.
	for _, room := range []interface{ Pages(*console.Console) }{
		h.tenant, h.notify, h.product, h.identity, h.enroll, h.fleet, h.telemetry, h.command, h.alarm, h.update, h.sbom, h.vuln, h.respond, h.inform, h.oncall, h.desk, h.advisory, h.conform, h.self, h.retire, h.handover, h.evidence,
	} {
		room.Pages(h.console)
	}
	return nil
}

// web is what people and programs see.
func (h *house) web() http.Handler {
	mux := http.NewServeMux()
	h.api.Mount(mux)
	mux.HandleFunc("GET /metrics", h.metrics(h.metricsAuth))
	mux.HandleFunc("GET /.well-known/security.txt", h.desk.SecurityTxt)
	mux.Handle("/", h.console)
	return patient(h.identity.Public(h.advisory.DataHost(mux)), 5*time.Minute)
}

// patient gives a request's body the time that it takes over a slow line, and then closes the connection: who sends a
// byte a minute holds it for minutes, not for ever. Least is for any body; one that states no length gets it twice.
func patient(next http.Handler, least time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			long := 2 * least
			if r.ContentLength > 0 {
				long = least + time.Duration(r.ContentLength/slowestLine)*time.Second
			}
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(long)); err != nil {
				http.Error(w, "this connection cannot be given a deadline", http.StatusInternalServerError)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// slowestLine is how fast a long body has to come, in bytes a second.
const slowestLine = 32 << 10

type worker struct {
	name string
	run  func(context.Context) error
}

// until works until ctx ends. To be cut off by that is no failure; anything else is, also then.
func (w worker) until(ctx context.Context) error {
	err := w.run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// work is what goes on in the background.
func (h *house) work() []worker {
	work := []worker{
		{"issuer", h.identity.WatchIssuer},
		{"jobs", h.db.RunJobs}, {"telemetry jobs", h.records.RunJobs}, {"identity", h.identity.Work}, {"fleet", h.fleet.Work}, {"sessions", h.sessions.Work}, {"twins", h.fleet.WorkTwins},
		{"refusals", h.refusals.Run}, {"notify", h.notify.Work}, {"product", h.product.Work}, {"telemetry", h.telemetry.Work}, {"command", h.command.Work}, {"alarm", h.alarm.Work}, {"update", h.update.Work}, {"sbom", h.sbom.Work}, {"vuln", h.vuln.Work}, {"respond", h.respond.Work}, {"inform", h.inform.Work}, {"conform", h.conform.Work}, {"evidence", h.evidence.Work},
		{"keys", func(ctx context.Context) error { return h.keys.Work(ctx, h.cfg.Log, h.db, h.records) }},
	}
	if h.cfg.Self != "" {
		work = append(work, worker{"own bill of materials", h.watchOwn})
	}
	if h.issuerWork != nil {
		work = append(work, worker{"issuer's token", h.issuerWork})
	}
	return work
}
