"""The status page: words for what there is, the first state as HTML, and the files that keep it live in a browser.

`words` and `fields` say everything as text (pure; page/static/fields.js says the same, and a test compares both),
`render` puts the text into the HTML of page/static, `assets` holds the files that a browser asks for.
"""
