// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"slices"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/update/trust"
	"github.com/openthings-platform/openthings/wire"
)

// MaxImage is the largest image, in bytes.
const MaxImage = 1 << 30

// Parts of an upload, in the order in which they must come: what is signed is read before the first byte of an image
// is stored, so that nobody fills the disk without a signature.
const (
	PartTargets = "targets"
	PartSBOM    = "sbom"
	PartVEX     = "vex" // may be left out
	PartImage   = "image"
)

// upload is what stood before the image.
type upload struct {
	targets []byte
	signed  *trust.Targets
	sbom    []byte
	bill    sbom.Bill
	putVEX  func(tx *store.Tx, tenant, actor string) error // nil: no statements came
	image   *multipart.Part
}

// maxVEX bounds the statements that come with a release, in bytes.
const maxVEX = 1 << 20

// Upload makes a release of a multipart body with the parts targets, sbom, perhaps vex, and image. Every refusal names its rule, and
// leaves nothing behind but, at worst, an unnamed blob.
func (s *Service) Upload(ctx context.Context, parts *multipart.Reader) (Release, error) {
	t := tenant.MustTenant(ctx)
	actor, _ := tenant.ActorFrom(ctx)
	now := s.cfg.Clock.Now()
	u, err := s.readSigned(ctx, t, parts, now)
	if err != nil {
		return Release{}, err
	}
	image, size, err := s.readImage(ctx, u.image, u.signed)
	if err != nil {
		return Release{}, err
	}
	target, err := u.find(image, size)
	if err != nil {
		return Release{}, err
	}
	if err := tenant.Require(ctx, tenant.ReleaseUpload, tenant.Thing{Tenant: t, Product: target.Product}); err != nil {
		return Release{}, err
	}
	if err := s.admitTarget(ctx, t, target, now); err != nil {
		return Release{}, err
	}
	doc, err := s.cfg.SBOM.Keep(ctx, u.sbom)
	if err != nil {
		return Release{}, err
	}
	r := Release{ID: store.NewID("rel"), Tenant: t, Product: target.Product, Version: target.Version, SecurityVersion: target.SecurityVersion,
		DataFloor: target.DataFloor, MinFrom: target.MinFrom, Class: target.Class, Path: target.Path, HW: target.HW, Image: image, Length: size,
		SBOM: target.SBOM, Targets: u.signed.Version, Signers: u.signed.Signers, State: Draft, Actor: actor.ID, Created: store.Time(store.Millis(now))}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := putTargets(tx, t, u.signed, u.targets, now); err != nil {
			return err
		}
		if err := insertRelease(tx, r); err != nil {
			return err
		}
		if err := relist(tx, t, u.signed); err != nil {
			return err
		}
		data := map[string]any{"product": r.Product, "version": r.Version, "security_version": r.SecurityVersion, "class": r.Class, "hw": r.HW,
			"image": r.Image, "length": r.Length, "sbom": r.SBOM, "signers": r.Signers, "targets_version": r.Targets}
		if err := audit.Append(tx, audit.Entry{Tenant: t, Actor: actor.ID, Kind: "release.uploaded", Subject: r.ID, Data: data}); err != nil {
			return err
		}
		if err := s.cfg.SBOM.Attach(tx, t, r.ID, u.bill, doc, actor.ID); err != nil {
			return err
		}
		if u.putVEX != nil {
			if err := u.putVEX(tx, t, actor.ID); err != nil {
				return err
			}
		}
		if err := s.RecordCheck(tx, t, r.ID, CheckSignature, Pass, "signed by key "+shortKey(r.Signers[0])+", list version "+itoa(r.Targets), "update"); err != nil {
			return err
		}
		if err := s.RecordCheck(tx, t, r.ID, CheckSBOM, Pass, string(u.bill.Format)+" "+u.bill.SpecVersion+" names the image", "update"); err != nil {
			return err
		}
		if err := s.demandGrade(tx, t, r.ID, u.bill.Quality()); err != nil {
			return err
		}
		if err := s.cfg.DB.Enqueue(tx, jobRecognise, r.ID, now, recogniseJob{Tenant: t, Release: r.ID}); err != nil {
			return err
		}
		return s.cfg.DB.Emit(tx, "release.uploaded", t, r.ID, data)
	})
	if err != nil {
		return Release{}, err
	}
	return s.Get(ctx, t, r.ID)
}

// demandGrade holds the bill of materials against the grade that the house demands, if it demands one.
func (s *Service) demandGrade(tx *store.Tx, t, release string, q sbom.Quality) error {
	if s.cfg.SBOMGrade == "" {
		return nil
	}
	verdict, evidence := Pass, "graded "+string(q.Grade)
	if !q.Grade.AtLeast(s.cfg.SBOMGrade) {
		verdict = Fail
		evidence = fmt.Sprintf("graded %s, and %s is demanded; %d of %d parts cannot be matched, %d facts are missing", q.Grade, s.cfg.SBOMGrade, q.NotMatchable(), q.Total, len(q.Missing))
	}
	return s.RecordCheck(tx, t, release, CheckQuality, verdict, evidence, "update")
}

// readSigned reads the list of releases and the bill of materials, and refuses a list that the tenant's root does not vouch for.
func (s *Service) readSigned(ctx context.Context, tenantID string, parts *multipart.Reader, now time.Time) (upload, error) {
	var u upload
	var err error
	if u.targets, err = readPart(parts, PartTargets, trust.MaxTargets); err != nil {
		return upload{}, err
	}
	rootDoc, err := s.TrustRoot(ctx, tenantID)
	if err != nil {
		return upload{}, err
	}
	if rootDoc == nil {
		return upload{}, problem.Forbidden("update."+trust.RuleSignature, "This tenant has no update root yet, so nobody can sign a release.").
			Hint("Run openthings sign init offline and send root.json to POST /v1/trust/root.")
	}
	root, err := trust.ParseRoot(rootDoc)
	if err != nil {
		return upload{}, err
	}
	if u.signed, err = root.Verify(u.targets, now); err != nil {
		return upload{}, forbidden(err)
	}
	if u.sbom, err = readPart(parts, PartSBOM, sbom.MaxBytes); err != nil {
		return upload{}, err
	}
	if u.bill, err = sbom.Parse(u.sbom); err != nil {
		return upload{}, err
	}
	if u.image, err = nextPart(parts, PartVEX, PartImage); err != nil || u.image.FormName() == PartImage {
		return u, err
	}
	doc, err := readAll(u.image, PartVEX, maxVEX)
	if err != nil {
		return upload{}, err
	}
	if s.cfg.VEX == nil {
		return upload{}, problem.Invalid("No statements are taken with a release here.").At(PartVEX)
	}
	if u.putVEX, err = s.cfg.VEX(doc); err != nil {
		return upload{}, err
	}
	u.image, err = nextPart(parts, PartImage)
	return u, err
}

func (s *Service) readImage(ctx context.Context, p io.Reader, signed *trust.Targets) (digest string, size int64, err error) {
	longest := int64(0)
	for _, t := range signed.Targets {
		longest = max(longest, t.Length)
	}
	return s.cfg.Blobs.Put(ctx, p, min(longest, MaxImage))
}

// find picks the signed target that is this image, and holds the bill of materials against it.
func (u upload) find(image string, size int64) (trust.Target, error) {
	for _, t := range u.signed.Targets {
		if t.SHA256 != image || t.Length != size {
			continue
		}
		if sum := wire.Digest(u.sbom); sum != t.SBOM {
			return trust.Target{}, problem.Forbidden(RuleSBOMFile, "The bill of materials is %s; the manufacturer signed for %s.", sum, t.SBOM)
		}
		if !u.bill.Names(image) {
			return trust.Target{}, problem.Forbidden(RuleSBOMImage, "The bill of materials does not name the image %s.", image).
				Hint("Give its root component the SHA-256 of the image as a hash.")
		}
		return t, nil
	}
	return trust.Target{}, problem.Forbidden("update."+trust.RuleDigest, "The signed list does not name an image %s of %d bytes.", image, size)
}

func (s *Service) admitTarget(ctx context.Context, tenantID string, t trust.Target, now time.Time) error {
	revisions, err := s.cfg.Product.Revisions(ctx, tenantID, t.Product)
	if err != nil {
		return err
	}
	if len(revisions) == 0 {
		return problem.Forbidden("update."+trust.RuleProduct, "There is no product %s with a hardware revision here.", t.Product)
	}
	var published int64
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) (err error) {
		published, err = highestPublished(tx, tenantID, t.Product)
		return err
	})
	if err != nil {
		return err
	}
	return admit(t, revisions, published, now)
}

// nextPart returns the next part, which must have one of the names. The last one is missed where it has none.
func nextPart(parts *multipart.Reader, names ...string) (*multipart.Part, error) {
	p, err := parts.NextPart()
	if errors.Is(err, io.EOF) {
		return nil, missing(names[len(names)-1])
	}
	if err != nil {
		return nil, problem.Invalid("The upload is not a well-formed multipart body.").Because(err)
	}
	if !slices.Contains(names, p.FormName()) {
		return nil, missing(names[len(names)-1])
	}
	return p, nil
}

func missing(name string) error {
	return problem.Invalid("The part %q is missing or comes too late.", name).At(name).
		Hint("Send targets, sbom, vex if there is one, and image, in this order.")
}

func readPart(parts *multipart.Reader, name string, limit int64) ([]byte, error) {
	p, err := nextPart(parts, name)
	if err != nil {
		return nil, err
	}
	return readAll(p, name, limit)
}

func readAll(p io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(p, limit+1))
	if err != nil {
		return nil, problem.Invalid("The upload broke off.").At(name).Because(err)
	}
	if int64(len(b)) > limit {
		return nil, problem.TooLarge("The part %s has more than %d bytes.", name, limit).At(name)
	}
	return b, nil
}
