"Packaging metadata, all read from `settings.ini`: edit there, not here"
from configparser import ConfigParser
from pathlib import Path
import setuptools

root = Path(__file__).parent
cp = ConfigParser(delimiters=['='])
cp.read(root/'settings.ini', encoding='utf-8')
cfg = cp['DEFAULT']

extras = {k.removesuffix('_requirements'):cfg[k].split() for k in cfg if k.endswith('_requirements')}
statuses = '1 - Planning,2 - Pre-Alpha,3 - Alpha,4 - Beta,5 - Production/Stable,6 - Mature,7 - Inactive'.split(',')

setuptools.setup(
    version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], license=cfg['license'], url=cfg['git_url'],
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(), extras_require=extras,
    # package_dir: with it an editable install is a line on sys.path, which numba's caches left behind by an earlier install cannot shadow
    package_dir={'':'.'}, packages=setuptools.find_packages(include=[cfg['lib_name'], cfg['lib_name']+'.*']),
    # include_package_data would look for these without the leading ./ of package_dir
    package_data={'rotnb.explore':['static/*.js','static/*.css'], 'rotnb':['weights/*.safetensors','weights/*.json']},
    long_description=(root/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=[f"Development Status :: {statuses[int(cfg['status'])-1]}", f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}", 'Programming Language :: Python :: 3 :: Only'],
    entry_points={'console_scripts':cfg['console_scripts'].split(), 'nbdev':[f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False)
