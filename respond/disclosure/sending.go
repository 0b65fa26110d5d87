// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
)

const (
	maxFields = 1 << 20   // bytes of all fields of a sending that are no files
	maxHeld   = 200 << 20 // bytes of files of all sendings that are in memory at one time
)

// read takes a sending from a form, with or without files. Files stay in memory until they are sealed: in the clear they
// never touch the disk. When too many are on their way, files are refused and text is not.
func (s *Service) read(r *http.Request) (in Intake, release func(), err error) {
	held := int64(0)
	release = func() { s.held.Add(-held) }
	if err := s.rates.Take(api.Address(r), 1); err != nil {
		return in, release, err
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r.Body, maxFields), r.Body}
		if err := r.ParseForm(); err != nil {
			return in, release, problem.Invalid("The form could not be read.").Because(err)
		}
		return intakeOf(r.PostForm), release, nil
	}
	m, err := r.MultipartReader()
	if err != nil {
		return in, release, problem.Invalid("The form could not be read.").Because(err)
	}
	r.PostForm = url.Values{}
	fields, files := int64(maxFields), []Upload(nil)
	for {
		p, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return in, release, problem.Invalid("The upload broke off.").Because(err)
		}
		if p.FileName() == "" {
			b, err := io.ReadAll(io.LimitReader(p, fields+1))
			if err != nil {
				return in, release, problem.Invalid("The upload broke off.").Because(err)
			}
			if fields -= int64(len(b)); fields < 0 {
				return in, release, problem.TooLarge("The text is too long.")
			}
			if p.FormName() != "file" { // a browser sends an empty one when no file was chosen
				r.PostForm.Add(p.FormName(), string(b))
			}
			continue
		}
		if len(files) >= maxFiles {
			return in, release, problem.TooLarge("At most %d files are taken at once.", maxFiles).At("file")
		}
		b, err := s.readFile(p, &held)
		if err != nil {
			return in, release, err
		}
		files = append(files, Upload{Name: filepath.Base(p.FileName()), Type: p.Header.Get("Content-Type"), Body: b})
	}
	in = intakeOf(r.PostForm)
	in.Files = files
	return in, release, nil
}

// readFile reads one file within the bounds of a file and of what all sendings may hold.
func (s *Service) readFile(p io.Reader, held *int64) ([]byte, error) {
	var out []byte
	for chunk := make([]byte, 64<<10); ; {
		n, err := p.Read(chunk)
		*held += int64(n)
		if s.held.Add(int64(n)) > maxHeld {
			return nil, problem.Limited("Too many files are on their way.").At("file").Hint("Send the report without files; they can be added later behind the status link.")
		}
		if out = append(out, chunk[:n]...); len(out) > maxFile {
			return nil, problem.TooLarge("A file has at most %d MB.", maxFile>>20).At("file")
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, problem.Invalid("The upload broke off.").Because(err)
		}
	}
}

// intakeOf reads the fields of the form.
func intakeOf(v url.Values) Intake {
	in := Intake{Channel: "form", Product: v.Get("product"), Language: v.Get("language"),
		Finder: Finder{Name: v.Get("name"), Contact: v.Get("contact"), Credit: v.Get("credit")}}
	in.Subject, in.Exploited = v.Get("subject"), v.Get("exploited")
	if in.Exploited == "" {
		in.Exploited = "unknown"
	}
	in.Words = Words{Text: v.Get("text"), Product: v.Get("version"), Where: v.Get("where"), When: v.Get("when"), Evidence: v.Get("evidence")}
	return in
}
