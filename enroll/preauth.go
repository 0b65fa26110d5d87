// SPDX-License-Identifier: AGPL-3.0-only

package enroll

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

// RuleListed refuses a serial number that is not among those that may be made.
const RuleListed = "enroll.not-preauthorised"

// Bounds of a CSV file of serial numbers.
const (
	MaxImport = 32 << 20 // bytes
	MaxRows   = 200_000
	maxFaults = 50 // faulty lines named in one answer
)

// Preauthorised is a serial number that may be made once, with what the factory knows of the unit before it is.
type Preauthorised struct {
	Tenant  string            `json:"-"`
	Product string            `json:"product"`
	Serial  string            `json:"serial"`
	Batch   string            `json:"batch,omitempty" doc:"It may be made in this batch only"`
	MAC     string            `json:"mac,omitempty"`
	Order   string            `json:"order,omitempty" doc:"Production order"`
	Line    string            `json:"line,omitempty" doc:"Production line"`
	Part    string            `json:"part,omitempty" doc:"Part number"`
	Labels  map[string]string `json:"labels,omitempty" doc:"The device gets them"`
	Actor   string            `json:"actor,omitempty"`
	Created time.Time         `json:"created,omitzero"`
	Used    time.Time         `json:"used,omitzero"`
	Device  string            `json:"device,omitempty" doc:"Which device used it"`

	upload string
	row    int // line of the file that it stands in; 0: none
}

func (p Preauthorised) check() error {
	if p.MAC != "" && !macPattern.MatchString(p.MAC) {
		return problem.Invalid("%.40q is no MAC address.", p.MAC).At("mac")
	}
	return errors.Join(identity.CheckSerial(p.Serial), checkWord(p.Order, "order"), checkWord(p.Line, "line"), checkWord(p.Part, "part"), checkLabels(p.Labels))
}

// byteOrderMark is what some programs begin a file of text with.
const byteOrderMark = "\ufeff"

// labelColumn begins the name of a column that holds a label: "label:site".
const labelColumn = "label:"

// readPreauthorised reads a CSV file (RFC 4180) whose first line names its columns: serial, and any of mac, order,
// line, part and label:NAME. Every faulty line is named, up to a bound; a file with one is refused whole.
func readPreauthorised(r io.Reader) ([]Preauthorised, error) {
	text := bufio.NewReader(r)
	if mark, _ := text.Peek(len(byteOrderMark)); string(mark) == byteOrderMark { // before a quote it would be a letter of the cell
		text.Discard(len(byteOrderMark)) //nolint:errcheck // it was just there
	}
	c := csv.NewReader(text)
	c.TrimLeadingSpace, c.ReuseRecord = true, true
	head, err := c.Read()
	if err != nil {
		return nil, problem.Invalid("The file has no first line that names its columns.").At("line 1").Because(err).Hint("Begin it with: serial,order,line,part")
	}
	columns := make([]string, len(head))
	for i, name := range head {
		columns[i] = strings.ToLower(strings.TrimSpace(name))
		known := slices.Contains([]string{"serial", "mac", "order", "line", "part"}, columns[i]) || labelName.MatchString(strings.TrimPrefix(columns[i], labelColumn)) && strings.HasPrefix(columns[i], labelColumn)
		if !known || slices.Contains(columns[:i], columns[i]) {
			return nil, problem.Invalid("%.40q is no column, or stands twice.", name).At("line 1").Hint("Columns are serial, mac, order, line, part and label:NAME.")
		}
	}
	if !slices.Contains(columns, "serial") {
		return nil, problem.Invalid("The file has no column serial.").At("line 1")
	}
	var out []Preauthorised
	var faults faults
	at := map[string]int{}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var broken *csv.ParseError
		switch {
		case errors.As(err, &broken) && errors.Is(err, csv.ErrFieldCount):
			faults.add(broken.Line, "It has %d columns, the first line has %d.", len(record), len(columns))
			continue
		case errors.As(err, &broken):
			faults.add(broken.Line, "It cannot be read: %v.", broken.Err)
			return nil, faults.err()
		case err != nil:
			return nil, problem.Invalid("The file breaks off.").Because(err)
		}
		line, _ := c.FieldPos(0)
		p := fromColumns(columns, record)
		if err := p.check(); err != nil {
			faults.add(line, "%s", problem.Of(err).Text)
		} else if before := at[p.Serial]; before > 0 {
			faults.add(line, "The serial number %s stood in line %d already.", p.Serial, before)
		}
		if at[p.Serial] = line; len(out) == MaxRows {
			return nil, problem.TooLarge("A file has at most %d serial numbers.", MaxRows)
		}
		p.row = line
		out = append(out, p)
	}
	return out, faults.err()
}

func fromColumns(columns, record []string) Preauthorised {
	var p Preauthorised
	for i, name := range columns {
		v := strings.TrimSpace(strings.Clone(record[i]))
		switch name {
		case "serial":
			p.Serial = v
		case "mac":
			p.MAC = v
		case "order":
			p.Order = v
		case "line":
			p.Line = v
		case "part":
			p.Part = v
		default:
			if v == "" {
				continue
			}
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			p.Labels[strings.TrimPrefix(name, labelColumn)] = v
		}
	}
	return p
}

// faults gathers what is wrong with a file, line by line.
type faults struct {
	n      int
	fields []problem.Field
}

// add names a fault; line is 0 where there is no file.
func (f *faults) add(line int, format string, args ...any) {
	at := "serial"
	if line > 0 {
		at = fmt.Sprintf("line %d", line)
	}
	if f.n++; len(f.fields) < maxFaults {
		f.fields = append(f.fields, problem.Field{At: at, Message: fmt.Sprintf(format, args...)})
	}
}

func (f *faults) err() error {
	if f.n == 0 {
		return nil
	}
	e := problem.Invalid("%d lines of the file are faulty; none was taken.", f.n)
	e.Fields = f.fields
	return e
}

// Imported is what a file of serial numbers holds.
type Imported struct {
	Rows    int             `json:"rows"`
	Preview bool            `json:"preview" doc:"Nothing was taken yet"`
	First   []Preauthorised `json:"first" doc:"The first ten, as they were understood"`
}

// Preauthorise lets serial numbers be made, all of the file or none. Product and batch hold for every line; batch may
// be empty. With preview the file is only checked.
func (s *Service) Preauthorise(ctx context.Context, tenant, product, batch string, r io.Reader, preview bool, actor string) (Imported, error) {
	ps, err := readPreauthorised(r)
	if err != nil {
		return Imported{}, err
	}
	return s.preauthorise(ctx, tenant, product, batch, ps, preview, actor)
}

func (s *Service) preauthorise(ctx context.Context, tenant, product, batch string, ps []Preauthorised, preview bool, actor string) (Imported, error) {
	out := Imported{Rows: len(ps), Preview: preview, First: []Preauthorised{}}
	if len(ps) == 0 {
		return out, problem.Invalid("There is no serial number in it.")
	}
	upload, now := store.NewID("upl"), s.now()
	for i := range ps {
		p := &ps[i]
		p.Tenant, p.Product, p.Batch, p.Actor, p.Created, p.upload = tenant, product, batch, actor, now, upload
	}
	out.First = append(out.First, ps[:min(10, len(ps))]...)
	if err := s.taken(ctx, ps); err != nil || preview {
		return out, err
	}
	if err := s.cfg.DB.Write(ctx, func(tx *store.Tx) error { return openUpload(tx, tenant, upload, len(ps), now) }); err != nil {
		return out, err
	}
	drop := func(err error) error { // what broke off must not keep its serial numbers from being announced again
		if err == nil {
			return nil
		}
		return errors.Join(err, s.cfg.DB.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error { return dropUpload(tx, tenant, upload) }))
	}
	for part := range slices.Chunk(ps, chunk) {
		if err := s.cfg.DB.WriteBulk(ctx, func(tx *store.Tx) error { return insertPreauthorised(tx, part) }); err != nil {
			return out, drop(err)
		}
	}
	return out, drop(s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		if err := closeUpload(tx, tenant, upload); err != nil {
			return err
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "serials.preauthorised", Subject: upload,
			Data: map[string]any{"product": product, "batch": batch, "rows": len(ps), "first": ps[0].Serial, "last": ps[len(ps)-1].Serial}})
	}))
}

// taken names the serial numbers of a file that cannot be preauthorised, since they already are or were made.
func (s *Service) taken(ctx context.Context, ps []Preauthorised) error {
	var f faults
	for part := range slices.Chunk(ps, 200) {
		args, marks := []any{ps[0].Tenant, ps[0].Product}, make([]string, len(part))
		for i, p := range part {
			args = append(args, p.Serial)
			marks[i] = fmt.Sprintf("$%d", len(args))
		}
		in := strings.Join(marks, ", ")
		have, err := takenSerials(ctx, s.cfg.DB, in, args)
		if err != nil {
			return err
		}
		for _, p := range part {
			if have[p.Serial] != "" {
				f.add(p.row, "The serial number %s is %s already.", p.Serial, have[p.Serial])
			}
		}
	}
	if err := f.err(); err != nil {
		e := problem.Conflict("%s cannot be preauthorised; none was taken.", console.Plural(f.n, "serial number", "serial numbers"))
		e.Fields = f.fields
		return e
	}
	return nil
}

// RevokePreauthorised takes back serial numbers that nobody has used; all of them or none.
func (s *Service) RevokePreauthorised(ctx context.Context, tenant, product string, serials []string, actor string) error {
	if len(serials) == 0 || len(serials) > chunk {
		return problem.Invalid("Name 1 to %d serial numbers.", chunk).At("serials")
	}
	return s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for _, serial := range serials {
			n, err := tx.Exec(`DELETE FROM preauthorised WHERE tenant = $1 AND product = $2 AND serial = $3 AND used = 0`, tenant, product, serial)
			if err != nil {
				return err
			}
			if n == 0 {
				return problem.Conflict("The serial number %.64s is not preauthorised, or was used.", serial).At("serials")
			}
		}
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "serials.revoked", Subject: product, Data: map[string]any{"product": product, "serials": serials}})
	})
}

// authorised is the row that lets the serial number be made in the batch; nil when there is none and none is demanded.
func authorised(tx *store.Tx, b Batch, serial string) (*Preauthorised, error) {
	p, err := preauthorisedSerial(tx.QueryRow, b.Tenant, b.Product, serial)
	switch {
	case errors.Is(err, store.ErrNoRows) && b.Listed:
		return nil, problem.Forbidden(RuleListed, "The serial number %s is not preauthorised, and the batch %s makes no other.", serial, b.Name).At("serial")
	case errors.Is(err, store.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	case !p.Used.IsZero():
		return nil, problem.Forbidden(RuleListed, "The serial number %s was preauthorised once and is used.", serial).At("serial")
	case p.Batch != "" && p.Batch != b.ID:
		return nil, problem.Forbidden(RuleListed, "The serial number %s is preauthorised for another batch.", serial).At("serial")
	}
	return &p, nil
}

// Preauthorised is the preauthorisation of a serial number that is not used yet; a problem with RuleListed if there is
// none. UsePreauthorised follows in the same transaction.
func (s *Service) Preauthorised(tx *store.Tx, tenant, product, serial string) (Preauthorised, error) {
	p, err := authorised(tx, Batch{Tenant: tenant, Product: product, Listed: true, Name: "in question"}, serial)
	if err != nil {
		return Preauthorised{}, err
	}
	return *p, nil
}

// UsePreauthorised uses up p for the device, which gets its labels.
func (s *Service) UsePreauthorised(tx *store.Tx, p Preauthorised, device string) error {
	return usePreauthorised(tx, p, device, s.now())
}

func usePreauthorised(tx *store.Tx, p Preauthorised, device string, at time.Time) error {
	n, err := tx.Exec(`UPDATE preauthorised SET used = $1, device = $2 WHERE tenant = $3 AND product = $4 AND serial = $5 AND used = 0`,
		store.Millis(at), device, p.Tenant, p.Product, p.Serial)
	if err == nil && n == 0 {
		return problem.Forbidden(RuleListed, "The serial number %s was preauthorised once and is used.", p.Serial).At("serial")
	}
	if err != nil {
		return err
	}
	return putLabels(tx, p.Tenant, device, p.Labels)
}

func labelsText(labels map[string]string) (string, error) {
	if len(labels) == 0 {
		return "", nil
	}
	b, err := json.Marshal(labels)
	return string(b), err
}
