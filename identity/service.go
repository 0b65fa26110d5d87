// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// Config is what identity needs. DB and Issuer are mandatory.
type Config struct {
	DB     *store.DB   // the platform handle
	Issuer Issuer      // signs
	Clock  clock.Clock // nil: clock.System
	Log    *slog.Logger
	// Journal is the folder of the revocation journal, outside the database and its backups; it is made if absent.
	// Empty: no journal, for tests only.
	Journal string
	// Lapsed is asked about a device whose LDevID has ended and is faulty in nothing else: nil admits it as
	// gateway.Lapsed, for the one route that takes such a peer. Nil: an ended certificate opens nothing.
	Lapsed func(ctx context.Context, tenant, device string, ended time.Time) error
	// Cut closes the live sessions of a device or station and says how many there were. It is called once a loss of
	// trust is durable, before the caller's Write returns. May be nil.
	Cut func(id, reason string) int
	// CutGroup does the same for everybody of a group of gateway.Peer; Peers lists who has a connection to this node. They
	// end the sessions of a bar, and whatever the regular sweep finds. May be nil.
	CutGroup func(group, reason string) int
	Peers    func() []gateway.Peer
	// Stale is how long this node may hear nothing of the feed of revocations before it admits nobody new, Sever before it
	// ends every live session. Zero: no such rule, for tests only.
	Stale, Sever time.Duration
	// PublicURL is where others reach the people's door, such as https://things.example.com:8443: certificates name the
	// revocation lists and the OCSP responder there. Empty: certificates name none, and no lists are made.
	PublicURL string
}

// Service is the register of devices and certificates. Its methods are safe for concurrent use.
type Service struct {
	cfg     Config
	journal *journal // nil without Config.Journal
	bundles bundleJournal
	feed    feed
	node    string // names this process

	shards     shards
	responders responders
	doubt      doubt
	first      func(tx *store.Tx, d Device) error // says whether a device may get its first certificate; nil: nobody is asked
	shut       atomic.Pointer[lost]               // what the database lost; nil: the doors may admit
	// authorityLife counts what changed which authority signs, or how a chain is presented.
	authorityLife atomic.Int64
	issuer        atomic.Pointer[IssuerState] // what the last look said; nil: nobody has looked yet
}

// New opens the register. If the database is behind the revocation journal, Admit refuses everybody until Work has
// applied what is missing.
func New(cfg Config) (*Service, error) {
	if cfg.DB == nil || cfg.Issuer == nil {
		return nil, errors.New("identity: Config.DB and Config.Issuer are mandatory")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, node: store.NewID("nod"), responders: responders{busy: make(chan struct{}, ocspBusy), signers: map[string]*responder{}}}
	if err := s.openFeed(context.Background()); err != nil {
		return nil, err
	}
	if err := s.syncAuthorities(context.Background()); err != nil {
		return nil, err
	}
	if cfg.Journal != "" {
		s.bundles.path = filepath.Join(cfg.Journal, "bundles.jsonl")
	}
	if err := s.keepBundles(context.Background()); err != nil {
		return nil, err
	}
	if err := s.firstBundle(context.Background()); err != nil {
		return nil, err
	}
	cfg.DB.Handle(jobAtIssuer, s.revokeAtIssuer)
	cfg.DB.Handle(jobEnding, s.watchEndings)
	if err := s.planEndings(context.Background(), cfg.Clock.Now()); err != nil {
		return nil, err
	}
	cfg.DB.Handle(jobBar, s.revokeBarred)
	if err := s.openShards(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}

// Get returns a device of the tenant, or a problem of kind not-found.
func (s *Service) Get(ctx context.Context, tenant, id string) (Device, error) {
	return deviceByID(s.reads(ctx), tenant, id)
}

// BySerial returns the device of the tenant's product with the serial number.
func (s *Service) BySerial(ctx context.Context, tenant, product, serial string) (Device, error) {
	return deviceBySerial(s.reads(ctx), tenant, product, serial)
}

// List returns the tenant's devices in the order of their ids.
func (s *Service) List(ctx context.Context, tenant string, f Filter) ([]Device, error) {
	return listDevices(ctx, s.cfg.DB, tenant, f)
}

// GetTx is Get inside a transaction.
func (s *Service) GetTx(tx *store.Tx, tenant, id string) (Device, error) {
	return deviceByID(tx.QueryRow, tenant, id)
}

// BySerialTx is BySerial inside a transaction.
func (s *Service) BySerialTx(tx *store.Tx, tenant, product, serial string) (Device, error) {
	return deviceBySerial(tx.QueryRow, tenant, product, serial)
}

// Register adds a device as manufactured. Tenant, Product, Revision and Serial are the caller's to fill; Register
// fills State, the times and an empty ID, and returns the device.
func (s *Service) Register(tx *store.Tx, d Device, actor string) (Device, error) {
	if err := CheckSerial(d.Serial); err != nil {
		return Device{}, err
	}
	if d.State = Manufactured; d.ID == "" {
		d.ID = store.NewID("dev")
	}
	d.Created = store.Time(store.Millis(s.cfg.Clock.Now()))
	d.Updated = d.Created
	if err := insertDevice(tx, d); err != nil {
		return Device{}, err
	}
	return d, audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: actor, Kind: "device.manufactured", Subject: d.ID, Data: map[string]any{
		"product": d.Product, "revision": d.Revision, "serial": d.Serial, "batch": d.Batch, "firmware": d.Firmware}})
}

// SetSolution says where the device serves from now on; empty releases it. The caller audits why.
func (s *Service) SetSolution(tx *store.Tx, tenant, id, solution string) error {
	return setSolution(tx, tenant, id, solution, s.cfg.Clock.Now())
}

// stateLeaf names the audit entry of a move to a state.
var stateLeaf = map[State]string{
	Provisioned: "device.provisioned", Pending: "device.claimed", Commissioned: "device.commissioned", Suspended: "device.suspended",
	Decommissioning: "device.decommissioning", Decommissioned: "device.decommissioned", Deprovisioned: "device.deprovisioned",
}

// SetState moves the device to another state, audits it and emits device.state. A move that the table of transitions
// does not have is a conflict. Suspension and the end close live sessions once durable; so does a release back to
// provisioned, which also revokes the LDevIDs.
func (s *Service) SetState(tx *store.Tx, tenant, id string, to State, actor, reason string) error {
	d, err := deviceByID(tx.QueryRow, tenant, id)
	if err != nil {
		return err
	}
	return s.move(tx, d, to, actor, reason)
}

func (s *Service) move(tx *store.Tx, d Device, to State, actor, reason string) error {
	if !d.State.May(to) {
		return problem.Conflict("A device that is %s cannot become %s.", d.State, to)
	}
	if d.State == Suspended && (to == Pending || to == Commissioned) && to != d.Resume { // neither a claim code nor a policy ends a suspension
		return problem.Conflict("%s is suspended (%s) and has to be resumed first.", d.Serial, d.Reason)
	}
	distrusts := to.rank() >= Suspended.rank() || d.State == Suspended
	if distrusts || d.released(to) { // which revokes
		if _, err := lockFeed(tx); err != nil {
			return err
		}
	}
	now := s.cfg.Clock.Now()
	resume := State("")
	if to == Suspended {
		resume = d.State
	}
	if ok, err := moveDevice(tx, d, to, resume, reason, now); err != nil || !ok {
		return errors.Join(err, problem.Conflict("The state of the device has just changed."))
	}
	kind := stateLeaf[to]
	if d.State == Suspended && to.rank() < Suspended.rank() {
		kind = "device.resumed"
	}
	change := map[string]any{"from": d.State, "to": to, "reason": reason, "product": d.Product, "solution": d.Solution}
	if err := audit.Append(tx, audit.Entry{Tenant: d.Tenant, Actor: actor, Kind: kind, Subject: d.ID, Data: change}); err != nil {
		return err
	}
	if distrusts {
		if err := s.distrust(tx, entry{Tenant: d.Tenant, Subject: d.ID, State: to, Reason: reason}); err != nil {
			return err
		}
	}
	if to == Suspended || d.State == Suspended { // others learn of it as a certificate on hold
		if err := touchSubject(tx, d.Tenant, d.ID); err != nil {
			return err
		}
	}
	if d.released(to) { // the next owner's device must not be reached with what it held for the last one
		if err := s.revoke(tx, d.Tenant, d.ID, actor, "released", false, LDevID); err != nil {
			return err
		}
	}
	return s.cfg.DB.Emit(tx, "device.state", d.Tenant, d.ID, change)
}

// Suspend locks the device out until Resume.
func (s *Service) Suspend(ctx context.Context, tenant, id, actor, reason string) error {
	return s.cfg.DB.WriteFirst(ctx, func(tx *store.Tx) error { return s.SetState(tx, tenant, id, Suspended, actor, reason) })
}

// Resume returns a suspended device to the state it had before.
func (s *Service) Resume(ctx context.Context, tenant, id, actor, reason string) error {
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		d, err := deviceByID(tx.QueryRow, tenant, id)
		if err != nil {
			return err
		}
		if d.State != Suspended {
			return problem.Conflict("The device is %s, not suspended.", d.State)
		}
		return s.move(tx, d, d.Resume, actor, reason)
	})
}

// Revoke ends the trust in the device's LDevIDs, and in its IDevID too once the device is decommissioned or
// deprovisioned; then nothing lets it enrol again. It audits, emits device.revoked and closes live sessions once
// durable. Call it in a WriteFirst.
func (s *Service) Revoke(tx *store.Tx, tenant, device, actor, reason string) error {
	d, err := deviceByID(tx.QueryRow, tenant, device)
	if err != nil {
		return err
	}
	kinds := []Kind{LDevID}
	if d.State.Barred() {
		kinds = append(kinds, IDevID)
	}
	return s.revoke(tx, tenant, device, actor, reason, d.State.Barred(), kinds...)
}

// RevokeStation ends the trust in a line station's certificates and closes its connections.
func (s *Service) RevokeStation(tx *store.Tx, tenant, station, actor, reason string) error {
	return s.revoke(tx, tenant, station, actor, reason, false, Station)
}

func (s *Service) revoke(tx *store.Tx, tenant, subject, actor, reason string, barred bool, kinds ...Kind) error {
	now := s.cfg.Clock.Now()
	if _, err := lockFeed(tx); err != nil {
		return err
	}
	if _, err := lockDevice(tx, tenant, subject); err != nil { // what is being issued to it now is in the register, or is refused there
		return err
	}
	revoked, err := revokeCertificates(tx, tenant, subject, reason, now, kinds...)
	if err != nil {
		return err
	}
	fps := make([]string, len(revoked))
	var until time.Time
	for i, c := range revoked {
		fps[i] = c.Fingerprint
		if c.NotAfter.After(until) {
			until = c.NotAfter
		}
		if c.Authority == "" { // a manufacturer's own; its authority is not ours to tell
			continue
		}
		told := atIssuer{Authority: c.Authority, Serial: c.Serial, At: store.Millis(now)}
		if err := s.cfg.DB.Enqueue(tx, jobAtIssuer, c.Fingerprint, now, told); err != nil {
			return err
		}
	}
	if err := touchCertificates(tx, fps); err != nil {
		return err
	}
	if err := s.distrust(tx, entry{Tenant: tenant, Subject: subject, Certificates: fps, Until: store.Millis(until), Reason: reason}); err != nil {
		return err
	}
	data := map[string]any{"reason": reason, "barred": barred, "certificates": fps}
	leaf, topic := "device.revoked", "device.revoked"
	if kinds[0] == Station {
		leaf, topic = "station.revoked", "station.revoked"
	}
	if err := audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: leaf, Subject: subject, Data: data}); err != nil {
		return err
	}
	return s.cfg.DB.Emit(tx, topic, tenant, subject, data)
}

// Certificates returns what was ever issued to a device or station, the newest first.
func (s *Service) Certificates(ctx context.Context, tenant, subject string) ([]Certificate, error) {
	return certificatesOf(ctx, s.cfg.DB, tenant, subject)
}

// IDevIDKey is the public key that the device was born with. It is there for ever, also after revocation, since wipe
// receipts are verified with it.
func (s *Service) IDevIDKey(ctx context.Context, tenant, device string) (crypto.PublicKey, error) {
	cs, err := certificatesOf(ctx, s.cfg.DB, tenant, device)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		if c.Kind == IDevID {
			x, err := c.Parse()
			if err != nil {
				return nil, fmt.Errorf("identity: certificate %s: %w", c.Fingerprint, err)
			}
			return x.PublicKey, nil
		}
	}
	return nil, problem.NotFound("The device has no IDevID.")
}

// Chain is the PEM of the authorities above certificates of the kind: the issuing one first, the root last.
func (s *Service) Chain(ctx context.Context, k Kind) ([]byte, error) {
	chain, err := s.activeChain(ctx, Profiles[k].Role)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, c := range chain {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.Bytes(), nil
}

// activeChain is the chain of the authority that signs for the role now.
func (s *Service) activeChain(ctx context.Context, r Role) ([]*x509.Certificate, error) {
	a, err := s.ActiveAuthority(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.chain(ctx, a.ID)
}

// Roots is the PEM of the root certificates that everything of this platform chains to: what people and devices pin. The
// one above the platform's own doors comes first; over a rollover the others that are good follow.
func (s *Service) Roots() (pemBytes []byte) {
	ctx := context.Background()
	chain, err := s.activeChain(ctx, Server)
	if err != nil || len(chain) == 0 {
		s.cfg.Log.Error("the root certificate cannot be read", "err", err)
		return nil
	}
	first := chain[len(chain)-1].Raw
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first})
	all, err := s.Authorities(ctx)
	if err != nil {
		s.cfg.Log.Error("the root certificates cannot be read", "err", err)
	}
	for _, a := range all {
		if good := a.Status == Active || a.Status == Standby || a.Status == Retiring; a.Role == Root && good && !bytes.Equal(a.Cert, first) {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert})...)
		}
	}
	return out
}
