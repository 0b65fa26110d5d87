// SPDX-License-Identifier: AGPL-3.0-only

package console

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/openthings-platform/openthings/problem"
)

// memory is how much of an upload is held; the rest lies in a file that is gone afterwards.
const memory = 1 << 20

// Upload registers where a form with enctype="multipart/form-data" is posted to. fn gets the first file of the field named
// file; else it is like Form. A body of more than limit bytes is refused.
func (c *Console) Upload(path, verb string, limit int64, fn func(r *http.Request, file io.ReaderAt, size int64) (redirect string, err error)) {
	if verb == "" {
		panic("console: upload " + path + " must declare a verb")
	}
	c.handle("POST "+path, c.guard(verb, false, func(w http.ResponseWriter, r *http.Request) error {
		r.Body = http.MaxBytesReader(w, r.Body, limit+maxForm)
		err := r.ParseMultipartForm(memory)
		if r.MultipartForm != nil {
			defer r.MultipartForm.RemoveAll() //nolint:errcheck // a folder for what may vanish
		}
		said := &note{}
		next := ""
		if err == nil {
			next, err = uploaded(r.WithContext(context.WithValue(r.Context(), noteKey{}, said)), fn)
		} else if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			err = problem.TooLarge("The file is larger than %d bytes.", limit)
		} else {
			err = problem.Invalid("The upload broke off.").Because(err)
		}
		if err != nil {
			return c.again(w, r, err)
		}
		said.keep(w)
		http.Redirect(w, r, Local(next), http.StatusSeeOther)
		return nil
	}))
}

// PublicBody is a PublicForm whose body fn reads itself, at most limit bytes of it: files that strangers send need not
// touch the disk. The fields that fn puts into r.PostForm are what Typed offers again.
func (c *Console) PublicBody(path string, limit int64, fn func(r *http.Request) (redirect string, err error)) {
	c.handle("POST "+path, c.guard("", true, func(w http.ResponseWriter, r *http.Request) error {
		said := &note{}
		r = r.WithContext(context.WithValue(r.Context(), noteKey{}, said))
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		next, err := fn(r)
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			err = problem.TooLarge("That is more than %d bytes.", limit)
		}
		if err != nil {
			return c.again(w, r, err)
		}
		said.keep(w)
		http.Redirect(w, r, Local(next), http.StatusSeeOther)
		return nil
	}))
}

func uploaded(r *http.Request, fn func(*http.Request, io.ReaderAt, int64) (string, error)) (string, error) {
	f, head, err := r.FormFile("file")
	if errors.Is(err, http.ErrMissingFile) {
		return "", problem.Invalid("Choose a file.").At("file")
	}
	if err != nil {
		return "", problem.Invalid("The upload cannot be read.").Because(err)
	}
	defer f.Close()
	return fn(r, f, head.Size)
}
