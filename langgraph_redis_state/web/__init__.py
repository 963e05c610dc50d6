"""`lgrs serve`: a page in the browser on what the `lgrs` command shows.

app       routes, and what a request is answered
guard     who may ask: token, cookie, Host, Origin, CSRF; the headers of every answer; the audit line
screens   what each screen shows: plain data for the templates
survey    what all threads wait for, kept from look to look
health    verify in the background, with its progress
serving   addresses, sockets, and the server
templates/, static/   HTML with everything escaped; one style sheet, one small script, htmx 2.0.11 (0BSD) as released

Imported by `cli`. May import `inspection`, starlette, uvicorn, jinja2 and what the package exports. Must load nothing from
elsewhere, nor put a value into a page but through a template.
"""
