"""The tree that the machines guard: a compose application as people run them, with its real dependencies.

Made once (`pip install --target`, `npm install`) and kept in the cache; copied into each machine that wants it. A
registry that cannot be reached is a failure of the tests, not a reason to leave them out.

`python3 application.py` makes what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from paths import CACHE
from rootfs import locked

DJANGO = "django==5.2.19"
VARLINK = "varlink==31.0.0"
NODE_PACKAGES = {
    "react": "19.3.1", "react-dom": "19.3.1", "@mui/icons-material": "^7", "@mui/material": "^7",
    "@emotion/react": "^11", "@emotion/styled": "^11",
}
NODE_TOOLS = {"vite": "8.3.8", "@vitejs/plugin-react": "6.3.0", "typescript": "^5"}
LATER_NODE_PACKAGE = "is-number@7.0.0"
"""What a test adds to the application with `npm install`: already in the download cache, so that it is quick."""

NPM_CACHE = CACHE / "npm"

FILES = {
    ".env.prod": "DJANGO_SECRET_KEY=not-a-real-secret-0123456789\nDATABASE_URL=postgres://app:not-a-password@db/app\n",
    ".gitignore": ".env*\nmedia/\nlogs/\nnode_modules/\nvendor/\n__pycache__/\n",
    "docker-compose.unified.yml": """\
services:
  backend:
    build: ./backend
    env_file: .env.prod
    volumes: ["./media:/app/media", "./logs:/app/logs"]
  nginx:
    image: nginx:1.28
    volumes: ["./deployment/nginx.conf.template:/etc/nginx/templates/default.conf.template:ro"]
    ports: ["443:443"]
""",
    "deployment/nginx.conf.template": """\
server {
    listen 443 ssl;
    server_name ${SERVER_NAME};
    location /static/ { alias /app/static/; }
    location / { proxy_pass http://backend:8000; }
}
""",
    "backend/Dockerfile": 'FROM python:3.13-slim\nCOPY . /app\nCMD ["python", "-m", "app"]\n',
    "backend/requirements.txt": DJANGO + "\n",
    "backend/app/__init__.py": "",
    "backend/app/settings.py": "import os\n\nSECRET_KEY = os.environ['DJANGO_SECRET_KEY']\nDEBUG = False\nALLOWED_HOSTS = ['*']\n",
    "backend/app/urls.py": "from django.urls import path\n\nfrom . import views\n\nurlpatterns = [path('', views.index)]\n",
    "backend/app/views.py": "from django.http import HttpResponse\n\n\ndef index(request):\n    return HttpResponse('hello')\n",
    "frontend/package.json": json.dumps(
        {"name": "shop", "private": True, "dependencies": NODE_PACKAGES, "devDependencies": NODE_TOOLS}, indent=2
    ) + "\n",
    "frontend/vite.config.ts": "import react from '@vitejs/plugin-react'\nexport default { plugins: [react()] }\n",
    "frontend/index.html": '<div id="root"></div><script type="module" src="/src/main.tsx"></script>\n',
    "frontend/src/main.tsx": """\
import { createRoot } from 'react-dom/client'
import { App } from './App'

createRoot(document.getElementById('root')!).render(<App />)
""",
    "frontend/src/App.tsx": "export function App() {\n  return <h1>hello</h1>\n}\n",
    "scripts/deploy.sh": "#!/bin/sh\nset -eu\ndocker compose -f docker-compose.unified.yml up -d --build\n",
    "scripts/backup.sh": "#!/bin/sh\nset -eu\npg_dump \"$DATABASE_URL\" > \"backup-$(date +%F).sql\"\n",
    "media/.keep": "",
    "logs/app.log": "started\n",
}

LINKS = {"current-compose.yml": "docker-compose.unified.yml", "frontend/public": "../media"}

WORKING = """\
import os, time
log = open("/srv/app/logs/app.log", "a", buffering=1)
n = 0
while True:
    n += 1
    open("/srv/app/backend/app/settings.py").read()
    log.write(f"request {n}\\n")
    with open(f"/srv/app/media/upload-{n % 50}.new", "w") as upload:
        upload.write("jpeg")
    os.rename(upload.name, upload.name.removesuffix(".new"))
    time.sleep(0.05)
"""
"""An application at work: it reads its code, writes a log that it keeps open, and takes uploads."""

PYTHON = "/usr/bin/python3"


def small(target: Path) -> None:
    """Writes the application without its dependencies, as a git repository with the branches `main` and `feature`."""
    for name, content in FILES.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
    (target / ".env.prod").chmod(0o640)
    for name, to in LINKS.items():
        (target / name).symlink_to(to)
    git = ["git", "-C", str(target), "-c", "user.name=dev", "-c", "user.email=dev@example.org"]
    run([*git, "init", "--quiet", "--initial-branch=main"])
    run([*git, "add", "--all"])
    run([*git, "commit", "--quiet", "--message=First version"])
    run([*git, "checkout", "--quiet", "-b", "feature"])
    (target / "backend/app/views.py").write_text(FILES["backend/app/views.py"].replace("'hello'", "'hello, feature'"))
    run([*git, "commit", "--quiet", "--all", "--message=Feature"])
    run([*git, "checkout", "--quiet", "main"])


def full() -> Path:
    """The cached application with Django below `backend/vendor` and React, Vite and MUI in `frontend/node_modules`."""
    return cached("application", [repr(FILES), repr(LINKS), DJANGO], make_full)


def make_full(target: Path) -> None:
    target.mkdir()
    small(target)
    pip_install(DJANGO, target / "backend/vendor")
    frontend = target / "frontend"
    npm(frontend, "install")
    npm(frontend, "cache", "add", LATER_NODE_PACKAGE)


def varlink_client() -> Path:
    """A directory with PyPI's `varlink`, an independent implementation of the control interface's protocol."""
    return cached("varlink", [VARLINK], lambda target: pip_install(VARLINK, target))


def cached(name: str, recipe: list[str], make: Callable[[Path], None]) -> Path:
    """The directory that `make` makes, from the cache if it was made there from the same recipe."""
    target = CACHE / f"{name}-{hashlib.sha256('|'.join(recipe).encode()).hexdigest()[:12]}"
    with locked(CACHE / f"{name}.lock"):
        if not target.is_dir():
            building = target.with_name(target.name + f".{os.getpid()}.tmp")
            try:
                make(building)
                building.rename(target)
            finally:
                if building.exists():
                    shutil.rmtree(building)
            for old in CACHE.glob(f"{name}-????????????"):
                if old != target:
                    shutil.rmtree(old)
    return target


def npm(directory: Path, *arguments: str) -> None:
    """npm in a directory, which may be inside a machine's root; downloads are cached."""
    command = ["npm", "--silent", "--no-audit", "--no-fund", "--no-update-notifier", f"--cache={NPM_CACHE}", *arguments]
    run(command, cwd=directory)


def pip_install(requirement: str, target: Path) -> None:
    run([PYTHON, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--root-user-action=ignore",
         "--target", str(target), requirement])


def run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    try:
        print(full())
        print(varlink_client())
    except RuntimeError as error:
        sys.exit(f"cannot make the application under test: {error}")
